"""Tries a LiteRT delegate, and a model on it: a program that may crash, for `probe.Prober`.

``python -m edge_agent.inference.backends.delegate_probe [--option=NAME=VALUE ...] LIBRARY [MODEL]``
"""

import argparse
import sys
from pathlib import Path

from edge_agent.inference.backends import litert_backend
from edge_agent.inference.errors import LoadError
from edge_agent.inference.probe import lower_priority


def main() -> int:
    """Print ``ok`` and return 0 if it works."""
    parser = argparse.ArgumentParser(prog="delegate_probe")
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("library", type=Path)
    parser.add_argument("model", type=Path, nargs="?")
    arguments = parser.parse_args()
    lower_priority()
    options = dict(option.split("=", 1) for option in arguments.option)
    try:
        litert_backend.try_delegate(arguments.library, options, arguments.model)
    except (LoadError, ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 1
    sys.stdout.write("ok\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

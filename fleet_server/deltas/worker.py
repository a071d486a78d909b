"""The process that makes one delta: ``python -m fleet_server.deltas.worker BASE NEW OUT``.

It runs at the lowest priority, within limits of memory and time, and ends with the server. ``OUT``
appears whole or not at all; it is empty where a delta does not pay.
"""

import argparse
import mmap
import os
import resource
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from fleet_server.deltas.encoding import encode

MAX_FRACTION = 0.9
"""A delta larger than this share of the new file costs more trouble than it saves."""

_MEMORY_BYTES = 512 * 1024 * 1024
_CPU_S = 1800
_NICE = 19


def write(base: Path, new: Path, out: Path, *, most: int) -> None:
    """Write the delta, or nothing where it has more than so many bytes.

    Raises:
        OSError: a file cannot be read or written.
    """
    parent = os.getppid()
    partial = out.with_suffix(".part")
    with ExitStack() as stack:
        mapped = [_mapped(path, stack) for path in (base, new)]
        file = stack.enter_context(partial.open("wb"))
        for piece in encode(*mapped):
            if os.getppid() != parent:
                sys.exit("the server is gone")
            file.write(piece)
            if file.tell() > most:
                file.seek(0)
                file.truncate()
                break
    partial.replace(out)


def _mapped(path: Path, stack: ExitStack) -> mmap.mmap:
    file = stack.enter_context(path.open("rb"))
    return stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _be_modest() -> None:
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    with suppress(OSError):  # not everywhere may a process choose its scheduler
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> int:
    """Make one delta; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes one delta; the server starts it.")
    for name in ("base", "new", "out"):
        parser.add_argument(name, type=Path)
    paths = parser.parse_args()
    _be_modest()
    try:
        most = int(paths.new.stat().st_size * MAX_FRACTION)
        write(paths.base, paths.new, paths.out, most=most)
    except (OSError, ValueError) as error:  # mmap says of an empty file that its value is wrong
        print(f"no delta: {error}", file=sys.stderr)  # noqa: T201 (the server reads it)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

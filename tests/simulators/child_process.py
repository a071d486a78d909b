"""A Python process of its own for a module of the tests."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_START = """
import importlib, sys, types
# Some distributions install a package "tests", which would hide ours.
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [sys.argv[1]]
importlib.import_module(sys.argv[2]).main(*sys.argv[3:])
"""


def command(module: str, *arguments: object) -> list[str]:
    """Return the command that calls ``main`` of a module with some arguments."""
    return [sys.executable, "-c", _START, str(ROOT / "tests"), module, *map(str, arguments)]


def bound(command: Sequence[str], number: str = "KILL") -> list[str]:
    """Return a command that gets a signal when the thread that starts it is gone, however."""
    return ["setpriv", f"--pdeathsig={number}", "--", *command]


def lines_of(command: list[str], *, timeout_s: float) -> list[str]:
    """Run a command to its end and return the lines that it printed.

    Raises:
        AssertionError: it failed; the message has what it said.
    """
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout.splitlines()

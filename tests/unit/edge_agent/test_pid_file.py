"""Pid files: believed only while their process lives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.pid_file import PidFile, PidFileError, holder

HOLD = (
    "import sys, pathlib\n"
    "from edge_agent.pid_file import PidFile\n"
    "held = PidFile(pathlib.Path(sys.argv[1]))\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)
NO_ROOM = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
)
"""Every file is as long as it may be: the kernel refuses a write that needs room, and no other."""


def test_a_second_holder_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    path = tmp_path / "run" / "runtime.pid"
    path.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert holder(path) == process.pid
        with pytest.raises(PidFileError, match=f"runtime process \\(pid {process.pid}\\)"):
            PidFile(path)
        os.kill(process.pid, signal.SIGKILL)
    assert holder(path) is None
    PidFile(path).release()


@pytest.mark.parametrize("text", ["", "1\n", f"{1:<31}\n"], ids=["new", "older", "ours"])
def test_it_is_held_where_the_disk_has_no_room(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runtime.pid"
    path.write_text(text)
    with subprocess.Popen(
        [sys.executable, "-c", NO_ROOM + HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert holder(path) == process.pid


def test_nobody_holds_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "control.pid") is None


def test_nobody_else_can_open_and_lock_it(tmp_path: Path) -> None:
    path = tmp_path / "runtime.pid"
    path.touch(mode=0o644)
    held = PidFile(path)
    assert path.stat().st_mode & 0o777 == 0o600
    held.release()

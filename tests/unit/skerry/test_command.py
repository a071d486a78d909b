"""The one command: what it loads, what it says, how it ends."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from fleet_protocol.errors import SkerryError
from skerry.__main__ import PARTS, MissingPartError, Part, load, missing

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def skerry(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skerry", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "100", **settings},
    )


def test_version() -> None:
    assert skerry("--version").stdout == f"skerry {version('skerry')}\n"


def test_help_teaches_the_order() -> None:
    text = skerry("--help").stdout
    steps = ["provision init", "server run", "model pack", "provision claim", "agent enroll"]
    places = [text.index(f"skerry {step}") for step in steps]
    assert places == sorted(places)
    for part in PARTS:
        assert part.help in text


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], ["edge_agent", "fleet_server", "model_pipeline", "provisioning"]),
        (["provision", "--help"], ["fleet_server", "fastapi", "sqlalchemy", "numpy", "edge_agent"]),
        (["model", "--help"], ["fleet_server", "fastapi", "sqlalchemy", "numpy", "onnxruntime"]),
        (["agent", "--help"], ["fleet_server", "fastapi", "sqlalchemy", "numpy", "onnxruntime"]),
    ],
)
def test_only_the_part_that_is_called_is_loaded(arguments: list[str], unwanted: list[str]) -> None:
    program = (
        "import sys, skerry.__main__ as command\n"
        f"sys.argv = ['skerry', *{arguments!r}]\n"
        "try:\n    command.main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({unwanted!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_an_expected_error_is_one_line() -> None:
    done = skerry("model", "inspect", "/nowhere/x.bundle")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: cannot read the bundle /nowhere/x.bundle: No such file or directory\n"
    )


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["provision", "nothing"], ["provision", "init"], ["--nothing"]]
)
def test_a_wrong_call(arguments: list[str]) -> None:
    done = skerry(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["provision", "--help"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    nobody, output = os.pipe()
    os.close(nobody)
    done = subprocess.run(
        [sys.executable, "-m", "skerry", *arguments],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(output)
    assert done.stderr == ""


PART = Part("cheese", "cheese.cli", "brie", "Cheese.")


@pytest.mark.parametrize("module", ["cheese.cli", "cheese"])
def test_a_part_that_is_not_there(module: str) -> None:
    error = missing(ModuleNotFoundError(name=module), PART)
    assert "this installation has no `skerry cheese`" in str(error)


def test_a_library_that_is_not_there() -> None:
    error = missing(ModuleNotFoundError(name="fastapi.routing"), PART)
    assert str(error) == (
        "`skerry cheese` needs fastapi, which is not installed: pip install 'skerry[brie]'"
    )


def test_a_module_of_ours_that_is_not_there_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError):
        missing(ModuleNotFoundError(name="fleet_server.misspelt"), PART)


def test_loading_a_part_that_is_not_there() -> None:
    with pytest.raises(MissingPartError):
        load(PART)
    assert issubclass(MissingPartError, SkerryError)


def test_a_library_missing_inside_a_command(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(name='numpy')")
    done = skerry(
        *("model", "pack", str(tmp_path), "--version", "1.0.0", "--variant", "a", "--out", "x"),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: `skerry model` needs numpy, which is not installed: pip install 'skerry[onnx]'\n"
    )


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._own, theirs = pty.openpty()
        self._process = subprocess.Popen(
            # A shell that runs the tests in the background has them, and so this, ignore SIGINT.
            ["/usr/bin/env", "--default-signal=INT", sys.executable, "-m", "skerry", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._seen = ""

    def wait_for(self, text: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self._seen:
            assert time.monotonic() < deadline, self._seen
            self._read()
        self._seen = self._seen.partition(text)[2]

    def type(self, line: str) -> None:
        os.write(self._own, f"{line}\n".encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Return the exit status and what was printed last."""
        while self._process.poll() is None or self._read():
            self._read()
        os.close(self._own)
        return self._process.wait(timeout=30), self._seen

    def _read(self) -> bool:
        try:
            piece = os.read(self._own, 65536)
        except OSError:  # the other side is closed
            return False
        self._seen += ANSI.sub("", piece.decode())
        return bool(piece)


def init(out: Path) -> Terminal:
    return Terminal(
        *("provision", "init", "--out", str(out), "--family", "a", "--server-name", "localhost")
    )


def test_a_passphrase_is_typed_twice_and_not_shown(tmp_path: Path) -> None:
    terminal = init(tmp_path / "authority")
    terminal.wait_for("Passphrase for the new offline keys: ")
    terminal.type("correct horse")
    terminal.wait_for("Repeat for confirmation: ")
    terminal.type("correct house")
    terminal.wait_for("Passphrase for the new offline keys: ")
    terminal.type("correct horse")
    terminal.wait_for("Repeat for confirmation: ")
    terminal.type("correct horse")
    status, printed = terminal.end()
    assert status == 0
    assert "Made the authority" in printed
    assert "horse" not in printed


def test_interrupting_a_prompt(tmp_path: Path) -> None:
    terminal = init(tmp_path / "authority")
    terminal.wait_for("Passphrase for the new offline keys: ")
    terminal.interrupt()
    status, printed = terminal.end()
    assert status == 130
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []

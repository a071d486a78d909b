"""What the commands of an operator print and write, whatever devices and servers say."""

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.text import Text

import fleet_server
from fleet_protocol.log_format import JsonFormatter
from fleet_server import operator_output
from fleet_server.errors import FleetError

EVIL = "cam\x1b]0;owned\x07\x9b2J\r[red]x"
SHOWN = r"cam\u001b]0;owned\u0007\u009b2J\u000d[red]x"
ROOT = Path(fleet_server.__file__).parent


def test_terminals_are_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    operator_output.say(EVIL, f"{EVIL}\nforged: done")
    operator_output.warn(EVIL)
    operator_output.print_lines(f"{EVIL}\n{EVIL}\n")
    operator_output.print_json({EVIL: EVIL})
    operator_output.print_table((EVIL,), [(EVIL,), (Text(EVIL, "red"),)], empty="")
    operator_output.print_table(("a",), [], empty=EVIL)
    operator_output.print_rows([{EVIL: EVIL}])
    operator_output.print_fields({EVIL: EVIL, "list": [EVIL]})
    printed = capsys.readouterr()
    for line in (printed.out + printed.err).splitlines():
        assert line.isprintable(), line
    assert printed.out.startswith(f"{SHOWN}\n{SHOWN}\\u000aforged: done\n")


def test_logs_on_a_terminal_obey_nobody() -> None:
    record = logging.makeLogRecord({"msg": "not_polled", "reason": EVIL})
    assert JsonFormatter().format(record).isprintable()


def commands() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "operator_options.py" and "operator_options import" in path.read_text():
            yield path


def test_commands_print_in_one_place() -> None:
    """A command that wrote by itself could hand on what a device says."""
    found = list(commands())
    assert len(found) >= 7
    for path in found:
        for node in ast.walk(ast.parse(path.read_text())):
            written = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
            forbidden = {"print", "sys.stdout", "sys.stderr", "typer.echo", "Console"}
            assert written not in forbidden, f"{path}:{getattr(node, 'lineno', 0)} {written}"
            reads = {"write_bytes", "write_text", "open"}
            assert not (isinstance(node, ast.Attribute) and node.attr in reads), path


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    operator_output.write_file(kept, [b"new"])
    assert kept.read_bytes() == b"new"
    assert kept.stat().st_mode & 0o777 == 0o600
    (tmp_path / "folder").mkdir()
    for unwritable in (tmp_path / "nowhere" / "log", tmp_path / "folder", Path("/proc/log")):
        with pytest.raises(FleetError, match=f"cannot write {unwritable}: "):
            operator_output.write_file(unwritable, [b"x"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "kept"]
    operator_output.write_file(Path("/dev/null"), [b"x"])


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old")

    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FleetError, match="No space left"):
        operator_output.write_file(log, [b"new"])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("log", b"old")]

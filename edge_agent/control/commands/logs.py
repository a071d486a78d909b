"""The command `logs`: an excerpt of the agent's own log, redacted, compressed and bounded."""

import asyncio
import gzip
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent import log_ring
from edge_agent.control.commands.redaction import redact_line
from edge_agent.control.commands.runner import CommandRefusedError, Done
from fleet_protocol.command_answers import MAX_LOG_BYTES, LogResult
from fleet_protocol.commands import Action, Command, Logs

_LEVELS = ("debug", "info", "warning", "error", "critical")
_MAX_LINE_BYTES = 16 * 1024


class _Line(msgspec.Struct):
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    level: str = "info"


class LogsAction:
    """Carries the command out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(self, action: Action, _command: Command) -> Done:
        """Return the excerpt.

        Raises:
            CommandRefusedError: this device keeps no log.
        """
        if not isinstance(action, Logs):
            raise TypeError(f"{action} does not ask for logs")
        result = await asyncio.to_thread(excerpt, self._folder, action)
        left_out = f", {result.left_out} older ones left out" if result.left_out else ""
        return Done(f"{result.lines} lines{left_out}", result)


def excerpt(folder: Path, wanted: Logs) -> LogResult:
    """Return what is wanted of the rings in a folder; the newest lines if not all fit.

    Raises:
        CommandRefusedError: there are no rings.
    """
    if not folder.is_dir():
        raise CommandRefusedError(f"this agent keeps no log below {folder.name}/")
    newest: deque[tuple[datetime, str]] = deque(maxlen=wanted.lines)
    found = 0
    processes = [wanted.process] if wanted.process else log_ring.PROCESSES
    entries = sorted(
        (entry for process in processes for entry in _entries(folder, process, wanted)),
        key=lambda entry: entry[0],
    )
    for entry in entries:
        newest.append(entry)
        found += 1
    cleaned = [redact_line(line) for _, line in newest]
    lines = [line for line, _ in cleaned]
    content = _packed(lines)
    while len(content) > MAX_LOG_BYTES:
        lines = lines[len(lines) // 2 :]
        content = _packed(lines)
    return LogResult(
        content=content,
        lines=len(lines),
        left_out=found - len(lines),
        redacted=sum(count for _, count in cleaned[len(cleaned) - len(lines) :]),
    )


def _entries(folder: Path, process: str, wanted: Logs) -> Iterator[tuple[datetime, str]]:
    least = _LEVELS.index(wanted.level)
    for path in log_ring.files(folder, process):
        for line in _lines(path):
            try:
                entry = msgspec.json.decode(line, type=_Line)
                text = line.decode()  # of what it does not read msgspec says nothing
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # cut off by a power cut, or by the bound on lines
            level = _LEVELS.index(entry.level) if entry.level in _LEVELS else len(_LEVELS)
            if level >= least and entry.time.timestamp() * 1000 >= wanted.since_ms:
                yield entry.time, _with_process(text, process)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE_BYTES):
                yield line.rstrip(b"\n")
    except OSError:
        return


def _with_process(line: str, process: str) -> str:
    return f'{{"process":"{process}",{line[1:]}' if line.startswith('{"') else line


def _packed(lines: list[str]) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)

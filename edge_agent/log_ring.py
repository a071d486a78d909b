"""The agent's own log on disk: for each process two files of bounded size, beside standard error.

They are what the command `logs` is answered from, because not every device has a journal and the
agent should not read everybody's. A disk that refuses loses lines and nothing else.
"""

import contextlib
import io
import logging
from pathlib import Path

from fleet_protocol.log_format import JsonFormatter

PROCESSES = ("control", "runtime", "supervisor")
MAX_FILE_BYTES = 1024 * 1024


class _Ring(logging.FileHandler):
    """What `logging.handlers` has for it would bring 0.2 MiB of other handlers along."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; what cannot be written is on standard error all the same."""
        line = self.format(record) + self.terminator
        with contextlib.suppress(OSError):
            stream = self._with_room(len(line.encode()))
            stream.write(line)
            stream.flush()

    def _with_room(self, size_bytes: int) -> io.TextIOWrapper:
        stream = self.stream or self._open()
        if stream.tell() + size_bytes > MAX_FILE_BYTES:
            newest = Path(self.baseFilename)
            with contextlib.suppress(FileNotFoundError):
                newest.replace(_older(newest))
            full, stream = stream, self._open()
            full.close()
        self.stream = stream
        return stream

    def _open(self) -> io.TextIOWrapper:
        stream = super()._open()
        Path(self.baseFilename).chmod(0o600)
        return stream


def keep(folder: Path, process: str) -> None:
    """Write what the root logger is told into the ring of a process, from now on."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ring = _Ring(path(folder, process), delay=True)
        ring.setFormatter(JsonFormatter())
        logging.getLogger().addHandler(ring)


def path(folder: Path, process: str) -> Path:
    """Return the file that is being written."""
    return folder / f"{process}.jsonl"


def files(folder: Path, process: str) -> list[Path]:
    """Return the files of a process, the oldest first; some may not be there."""
    newest = path(folder, process)
    return [_older(newest), newest]


def _older(newest: Path) -> Path:
    return newest.with_name(f"{newest.name}.1")

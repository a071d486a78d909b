"""The agent's own log on disk: for each process two files of bounded size, beside standard error.

They are what the command `logs` is answered from, because not every device has a journal and the
agent should not read everybody's. A disk that refuses loses lines and nothing else.
"""

import contextlib
import io
import logging
import logging.handlers
from pathlib import Path

from fleet_protocol.log_format import JsonFormatter

PROCESSES = ("control", "runtime", "supervisor")
MAX_FILE_BYTES = 1024 * 1024
_FILES_BEFORE = 1


class _Ring(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (of logging)
        """Go on: what cannot be written is on standard error."""

    def _open(self) -> io.TextIOWrapper:
        stream = super()._open()
        Path(self.baseFilename).chmod(0o600)
        return stream


def keep(folder: Path, process: str) -> None:
    """Write what the root logger is told into the ring of a process, from now on."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ring = _Ring(
            path(folder, process), maxBytes=MAX_FILE_BYTES, backupCount=_FILES_BEFORE, delay=True
        )
        ring.setFormatter(JsonFormatter())
        logging.getLogger().addHandler(ring)


def path(folder: Path, process: str) -> Path:
    """Return the file that is being written."""
    return folder / f"{process}.jsonl"


def files(folder: Path, process: str) -> list[Path]:
    """Return the files of a process, the oldest first; some may not be there."""
    newest = path(folder, process)
    return [newest.with_name(f"{newest.name}.1"), newest]

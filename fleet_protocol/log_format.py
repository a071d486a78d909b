"""The one log format: each record is a JSON object on a line, an event with fields.

Code logs with ``logger.info("release_committed", extra={"family": ..., "version": ...})``; the
message is the event's name and every ``extra`` becomes a field.
"""

import logging
from datetime import UTC, datetime

import msgspec

from fleet_protocol.plain_text import plain

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Renders records as JSON lines with time (UTC), level, logger, event and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record, without the line end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # What a peer said may be in it, and the log on a terminal.
        return plain(msgspec.json.encode(line, enc_hook=str).decode())

"""Sets logging up once per process: JSON lines on standard error, each with its request's id."""

import logging
import sys
from contextvars import ContextVar

from fleet_protocol.log_format import JsonFormatter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_QUIET = (
    "amqtt",
    "gmqtt",
    "transitions",
    "uvicorn",
    "aiosqlite",
    "alembic",
    "asyncio",
    "tuf",
    "httpcore",
    "httpx",
)
"""Libraries that tell the story of each packet; only their warnings are ours to keep."""


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        current = request_id.get()
        if current is not None:
            record.request_id = current
        return True


class _LostConnectionFilter(logging.Filter):
    """Takes the traceback off a connection that gmqtt has lost: it tells of no mistake here."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("gmqtt") and record.exc_info:
            error = record.exc_info[1]
            if isinstance(error, OSError):
                record.exc_info = None
                record.reason = str(error)
        return True


def configure(level: str) -> None:
    """Make the root logger write JSON lines from ``level`` up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_RequestIdFilter())
    handler.addFilter(_LostConnectionFilter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    logging.getLogger("tuf").setLevel(logging.ERROR)

"""The one download that may be under way, beside everything else that the updater does."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edge_agent.control.journal import UpdateRecord

logger = logging.getLogger(__name__)


@dataclass
class _Running:
    record: UpdateRecord
    cancelled: threading.Event
    task: "asyncio.Task[None]"


class Fetching:
    """Runs one fetch at a time; another one waits until it is over or no longer wanted."""

    def __init__(self, fetch: Callable[[UpdateRecord, threading.Event], Awaitable[None]]) -> None:
        """Take what fetches a record; it looks at the event and handles its own errors."""
        self._fetch = fetch
        self._running: _Running | None = None

    def start(self, record: UpdateRecord) -> None:
        """Begin to fetch a record, unless a fetch is under way."""
        if self._running is None:
            cancelled = threading.Event()
            task = asyncio.create_task(
                self._run(record, cancelled), name=f"fetch {record.family} {record.version}"
            )
            self._running = _Running(record, cancelled, task)

    def keep_only(self, wanted: list[UpdateRecord]) -> None:
        """Cancel the fetch under way if its release is not among the wanted ones."""
        if self._running is not None and not any(
            (record.family, record.manifest)
            == (self._running.record.family, self._running.record.manifest)
            for record in wanted
        ):
            self._running.cancelled.set()

    async def finished(self) -> None:
        """Wait until no fetch is under way."""
        while self._running is not None:
            await asyncio.shield(self._running.task)

    async def stop(self) -> None:
        """Cancel the fetch under way and wait for its end."""
        if self._running is not None:
            self._running.cancelled.set()
            self._running.task.cancel()
            await asyncio.gather(self._running.task, return_exceptions=True)

    async def _run(self, record: UpdateRecord, cancelled: threading.Event) -> None:
        try:
            await self._fetch(record, cancelled)
        except Exception:  # a defect of ours; the updater begins the fetch again
            logger.exception("fetch_failed", extra={"family": record.family})
        finally:
            self._running = None

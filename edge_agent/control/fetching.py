"""A download that may be under way beside everything else that the updater does.

There is one `Fetching` for updates and one for repairs: neither waits for the other.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from edge_agent.control.assignment import ManifestRef

logger = logging.getLogger(__name__)


class Job(Protocol):
    """What is fetched."""

    @property
    def family(self) -> str:
        """Of the release."""

    @property
    def manifest(self) -> ManifestRef:
        """Which release it is."""


Wanted = TypeVar("Wanted", bound=Job)


@dataclass
class _Running:
    job: Job
    cancelled: threading.Event
    task: "asyncio.Task[None]"


class Fetching(Generic[Wanted]):
    """Runs one fetch at a time; another one waits until it is over or no longer wanted."""

    def __init__(self, fetch: Callable[[Wanted, threading.Event], Awaitable[None]]) -> None:
        """Take what fetches; it looks at the event and handles its own errors."""
        self._fetch = fetch
        self._running: _Running | None = None

    def start(self, job: Wanted) -> None:
        """Begin to fetch, unless a fetch is under way."""
        if self._running is None:
            cancelled = threading.Event()
            task = asyncio.create_task(self._run(job, cancelled), name=f"fetch {job.manifest.path}")
            self._running = _Running(job, cancelled, task)

    def keep_only(self, wanted: list[Wanted]) -> None:
        """Cancel the fetch under way if its release is not among the wanted ones."""
        if self._running is not None and not any(
            (job.family, job.manifest) == (self._running.job.family, self._running.job.manifest)
            for job in wanted
        ):
            self._running.cancelled.set()

    @property
    def under_way(self) -> bool:
        """Whether a fetch still writes files, be it one that is no longer wanted."""
        return self._running is not None

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

    async def _run(self, job: Wanted, cancelled: threading.Event) -> None:
        try:
            await self._fetch(job, cancelled)
        except Exception:  # a defect of ours; the updater begins the fetch again
            logger.exception("fetch_failed", extra={"family": job.family})
        finally:
            self._running = None

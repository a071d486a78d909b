"""Background tasks of the process and the reason why it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

logger = logging.getLogger(__name__)


class Lifetime:
    """Runs background tasks; one that ends by itself ends the process."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.failed = False

    @asynccontextmanager
    async def background(
        self, name: str, work: Coroutine[object, object, None]
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Run work while the block lasts; afterwards it is cancelled and has ended."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        try:
            yield task
        finally:
            self.stop.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.stop.is_set() or task.cancelled():
            return
        self.failed = True
        logger.error("task_ended", extra={"task": task.get_name()}, exc_info=task.exception())
        self.stop.set()

"""Releases on their way out of memory: each goes when its last call has ended."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from edge_agent.inference.errors import UnavailableError
from edge_agent.inference.served_release import ServedRelease


class Departures:
    """The releases that nobody can reach any more but that still take memory."""

    def __init__(self, close: Callable[[ServedRelease], Awaitable[None]]) -> None:
        """Nobody leaves yet.

        Args:
            close: frees a release on which nothing runs.
        """
        self._close = close
        self._leaving: dict[ServedRelease, asyncio.Task[None]] = {}

    @property
    def releases(self) -> list[ServedRelease]:
        """Those that are not gone yet."""
        return list(self._leaving)

    def start(self, served: ServedRelease) -> asyncio.Task[None]:
        """Let a release go as soon as it can; no new call may begin on it."""
        task = asyncio.get_running_loop().create_task(self._let_go(served))
        self._leaving[served] = task
        return task

    async def gone(self, leaving: Sequence[ServedRelease], timeout_s: float) -> None:
        """Let releases go and wait for it.

        Raises:
            UnavailableError: calls are still in flight; the releases go when they end.
        """
        tasks = [self.start(served) for served in leaving]
        if tasks and (await asyncio.wait(tasks, timeout=timeout_s))[1]:
            calls = sum(served.in_flight for served in leaving)
            raise UnavailableError(
                f"after {timeout_s:g} s {calls} calls still run on "
                f"{', '.join(served.name for served in leaving)}: in memory until they end"
            )

    async def all_gone(self, timeout_s: float) -> bool:
        """Wait for everybody; return False if calls still ran when the time was over."""
        tasks = list(self._leaving.values())
        return not tasks or not (await asyncio.wait(tasks, timeout=timeout_s))[1]

    async def _let_go(self, served: ServedRelease) -> None:
        try:
            await served.drained()
            await self._close(served)
        finally:
            del self._leaving[served]

"""The thread beside the event loop in which releases are loaded and closed, one after the other.

What is loaded, and when, is the data plane's business; how a file becomes a warm model that of the
loader. From Linux 6.12 on, a call that begins meanwhile need not wait until this thread's slice or
the kernel's tick is over.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from edge_agent.inference.inference_call import Clock
from edge_agent.inference.lull import Lull
from edge_agent.inference.memory_budget import Need
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.served_release import ServedRelease
from edge_agent.priority import let_others_go_first, threads_as_usual
from edge_agent.runtime_api import ActiveRelease

_Result = TypeVar("_Result")


class LoadingThread:
    """One thread: two loads at once would double the peak of memory."""

    def __init__(self, loader: ReleaseLoader, *, clock: Clock, lull: Lull) -> None:
        """Load nothing yet.

        Args:
            loader: makes releases of files; only ever called in this thread.
            clock: says how long a load lasts.
            lull: hears of the calls that a load or a close shall meet as little as can be.
        """
        self._loader = loader
        self._clock = clock
        self._lull = lull
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="load", initializer=let_others_go_first
        )
        self._began = 0.0

    @property
    def loading_s(self) -> float:
        """For how long the present load has lasted; 0 while there is none."""
        return self._clock() - self._began if self._began else 0.0

    async def memory_needed(self, release: ActiveRelease, *, instances: int) -> Need:
        """Return how much memory loading a release will take, as far as that can be known."""
        return await self._run(partial(self._loader.memory_needed, release, instances=instances))

    async def load(
        self,
        release: ActiveRelease,
        *,
        instances: int,
        batched: bool,
        beside_calls: bool,
        before: ServedRelease | None = None,
    ) -> ServedRelease:
        """Load and warm a release; see `ReleaseLoader.load`.

        Raises:
            LoadError: it cannot be loaded.
        """
        lull = self._lull.wait if beside_calls else None
        self._began = self._clock()
        try:
            load = partial(
                self._loader.load,
                release,
                instances=instances,
                batched=batched,
                lull=lull,
                before=before,
            )
            return await self._run(threads_as_usual()(load))
        finally:
            self._began = 0.0

    async def close(self, served: ServedRelease) -> None:
        """Give the model of a release back, on which no call runs any more."""
        await self._run(partial(self._close, served))

    def end(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _close(self, served: ServedRelease) -> None:
        self._lull.wait()
        served.close()

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

"""What the runtime serves, whatever the protocol: releases by family and version.

All of it belongs to the event loop; only loading, running and closing models happen in threads. A
switch is the assignment of a pointer: calls in flight keep the release that they began on.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge_agent.inference.errors import (
    ConflictError,
    UnavailableError,
    UnknownModelError,
)
from edge_agent.inference.inference_call import Call, Clock
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.survey import with_used
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.workers import Workers
from edge_agent.runtime_api import ActiveRelease, LoadedRelease, RuntimeStatus

logger = logging.getLogger(__name__)

WHOLE_SET = "active.json"
"""Key in `DataPlane.failed` when not even the list of what was committed could be read."""

DRAIN_TIMEOUT_S = 20.0
_MAX_HELD = 1024

_Result = TypeVar("_Result")


class DataPlane:
    """The releases in memory and the calls on them."""

    def __init__(
        self,
        *,
        loader: ReleaseLoader,
        clock: Clock,
        workers: int,
        limits: Callable[[ActiveRelease], QueueLimits] | None = None,
    ) -> None:
        """Start with nothing.

        Args:
            loader: makes releases of files; only ever called in one thread of ours.
            clock: times calls.
            workers: how many calls may run beside the event loop at once.
            limits: what the scheduler of a release is told; by default it may use all workers.
        """
        self._loader = loader
        self._clock = clock
        self._workers = Workers(workers)
        self._limits = limits or (lambda _: QueueLimits(instances=workers))
        # One thread: two loads at once would double the peak of memory.
        self._loading_thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading = asyncio.Lock()
        self._held: dict[tuple[str, str], ServedRelease] = {}
        self._active: dict[str, ServedRelease] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.failed: dict[str, str] = {}
        self.accepting = True

    def begin(self, served: ServedRelease, *, started: float, counted: bool) -> Call:
        """Begin a call on a release; see `Call`."""
        return Call(served, started=started, counted=counted, clock=self._clock)

    async def run_in_thread(self, call: Call, feed: list[Tensor]) -> list[Tensor]:
        """Run a call's model without holding the event loop, when it is its turn.

        Raises:
            BackendError: the library failed.
            RefusedError: it was not run; the queue is full or the deadline cannot be met.
        """
        return await call.run_in_turn(feed)

    def active(self, family: str, version: str | None = None) -> ServedRelease:
        """Return the active release of a family, which must have the version if one is given.

        Raises:
            UnknownModelError: there is none.
            UnavailableError: the device has committed to the family but could not load it.
        """
        served = self._active.get(family)
        if served is None:
            if family in self.failed:
                raise UnavailableError(
                    f"model {family!r} is assigned to this device but could not be loaded: "
                    f"{self.failed[family]}"
                )
            raise UnknownModelError(
                f"no model {family[:80]!r} here; this device serves: {self._names()}"
            )
        if version is not None and served.release.version != version:
            raise UnknownModelError(
                f"model {family!r} has no active version {version[:40]!r}; active is "
                f"{served.release.version}"
            )
        return served

    def held(self, family: str, version: str) -> ServedRelease:
        """Return a loaded release, active or not.

        Raises:
            UnknownModelError: it is not loaded.
        """
        served = self._held.get((family, version))
        if served is None:
            raise UnknownModelError(f"{family[:80]!r} {version[:40]!r} is not loaded")
        return served

    def held_versions(self, family: str) -> list[str]:
        """Return the loaded versions of a family, the active one first."""
        active = self._active.get(family)
        versions = [served.release.version for served in self._family(family)]
        return sorted(
            versions, key=lambda version: active is None or version != active.release.version
        )

    @property
    def ready(self) -> bool:
        """True while everything that was committed is served and calls are accepted."""
        return self.accepting and not self.failed

    async def status(self) -> RuntimeStatus:
        """Return the state of the process; the first time it waits for a survey of the backends."""
        # Not in the loading thread: the status must not wait for a load.
        surveyed = await asyncio.get_running_loop().run_in_executor(None, self._loader.placements)
        placements = with_used(
            surveyed,
            {(held.backend_name, held.release.accelerator) for held in self._held.values()},
        )
        return RuntimeStatus(
            epoch=self._loader.epoch,
            pid=os.getpid(),
            releases=[self._loaded(served) for served in self._held.values()],
            resident_bytes=_resident_bytes(),
            backends={found.backend: found.version for found in placements if not found.problem},
            failed=dict(self.failed),
            placements=placements,
        )

    async def load(self, release: ActiveRelease) -> LoadedRelease:
        """Load and warm a release beside what is served; nothing happens if it is there already.

        Raises:
            LoadError: it cannot be loaded.
            ConflictError: another variant or file of that version is loaded.
        """
        key = (release.family, release.version)
        async with self._loading:
            served = self._held.get(key)
            if served is None:
                if len(self._held) >= _MAX_HELD:
                    raise ConflictError(f"{_MAX_HELD} releases are loaded; unload some first")
                served = await self._in_loading_thread(partial(self._loader.load, release))
                served.schedule(
                    limits=self._limits(release), workers=self._workers, clock=self._clock
                )
                self._held[key] = served
                logger.info("release_loaded", extra=_fields(served))
        if served.release != release:
            raise ConflictError(
                f"{release.family} {release.version} is loaded with another variant or file "
                f"({served.release.variant}); unload it first"
            )
        return self._loaded(served)

    def activate(self, family: str, version: str) -> LoadedRelease:
        """Let a loaded release answer from now on; calls in flight finish where they began.

        Raises:
            UnknownModelError: it is not loaded.
        """
        served = self.held(family, version)
        self._active[family] = served
        self.failed.pop(family, None)
        # Control has taken over where the file could not say what to serve.
        self.failed.pop(WHOLE_SET, None)
        logger.info("release_activated", extra=_fields(served))
        return self._loaded(served)

    async def unload(self, family: str, version: str, timeout_s: float = DRAIN_TIMEOUT_S) -> int:
        """Drain and unload a release; return how many were there (0 or 1).

        Raises:
            ConflictError: it is active.
            UnavailableError: calls are still in flight; the release goes when they end.
        """
        served = self._held.get((family, version))
        if served is None:
            return 0
        if self._active.get(family) is served:
            raise ConflictError(
                f"{family} {version} is active; activate another version first, or stop "
                "serving the family"
            )
        await self._retire([served], timeout_s)
        return 1

    async def unload_family(self, family: str, timeout_s: float = DRAIN_TIMEOUT_S) -> int:
        """Stop serving a family and unload its releases; return how many were loaded.

        Raises:
            UnavailableError: calls are still in flight; see `unload`.
        """
        self._active.pop(family, None)
        self.failed.pop(family, None)
        leaving = self._family(family)
        await self._retire(leaving, timeout_s)
        return len(leaving)

    async def close(self, timeout_s: float) -> bool:
        """Unload everything; return False if calls still ran when the time was over."""
        self.accepting = False
        self._active.clear()
        tasks = [self._start_retiring(served) for served in list(self._held.values())]
        tasks += self._retiring
        if tasks and (await asyncio.wait(tasks, timeout=timeout_s))[1]:
            return False
        self._workers.close()
        self._loading_thread.shutdown()
        return True

    async def _retire(self, leaving: Sequence[ServedRelease], timeout_s: float) -> None:
        tasks = [self._start_retiring(served) for served in leaving]
        if tasks and (await asyncio.wait(tasks, timeout=timeout_s))[1]:
            calls = sum(served.in_flight for served in leaving)
            raise UnavailableError(
                f"after {timeout_s:g} s {calls} calls still run on "
                f"{', '.join(served.name for served in leaving)}: in memory until they end"
            )

    def _start_retiring(self, served: ServedRelease) -> asyncio.Task[None]:
        # Out of reach first, so that no new call can begin on it.
        self._held.pop((served.release.family, served.release.version), None)
        task = asyncio.get_running_loop().create_task(self._let_go(served))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    async def _let_go(self, served: ServedRelease) -> None:
        await served.drained()
        served.scheduler.close()
        await self._in_loading_thread(served.close)
        logger.info("release_unloaded", extra=_fields(served))

    async def _in_loading_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._loading_thread, work)

    def _family(self, family: str) -> list[ServedRelease]:
        return [served for served in self._held.values() if served.release.family == family]

    def _names(self) -> str:
        return ", ".join(sorted(self._active)[:20]) or "no model yet"

    def _loaded(self, served: ServedRelease) -> LoadedRelease:
        release = served.release
        return LoadedRelease(
            family=release.family,
            version=release.version,
            variant=release.variant,
            backend=served.backend_name,
            accelerator=release.accelerator,
            active=self._active.get(release.family) is served,
            choice=release.choice,
        )


def _fields(served: ServedRelease) -> dict[str, object]:
    return {
        "family": served.release.family,
        "version": served.release.version,
        "variant": served.release.variant,
        "backend": served.backend_name,
        "accelerator": served.release.accelerator,
        "choice": served.release.choice,
        "inline_bytes": served.inline_bytes,
    }


def _resident_bytes() -> int:
    resident_pages = Path("/proc/self/statm").read_text().split()[1]
    return int(resident_pages) * os.sysconf("SC_PAGE_SIZE")

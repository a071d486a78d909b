"""What the runtime serves, whatever the protocol: releases by family and version.

All of it belongs to the event loop; only loading, running and closing models happen in threads. A
switch is the assignment of a pointer: calls in flight keep the release that they began on.
"""

import asyncio
import logging
import os
from typing import TYPE_CHECKING

import msgspec

from edge_agent.inference.departures import Departures
from edge_agent.inference.errors import ConflictError, UnavailableError, UnknownModelError
from edge_agent.inference.execution_policy import ExecutionPolicy
from edge_agent.inference.inference_call import Call, Clock
from edge_agent.inference.loading_thread import LoadingThread
from edge_agent.inference.lone_caller import LoneCaller
from edge_agent.inference.lull import Lull
from edge_agent.inference.memory_budget import MemoryPolicy
from edge_agent.inference.process_memory import resident_bytes
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.response_cache import ResponseCache
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.shadow import Shadows
from edge_agent.inference.sleep import Sleep
from edge_agent.inference.statistics import ModelStatistics
from edge_agent.inference.survey import with_used
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.workers import Workers
from edge_agent.runtime_api import (
    ActiveRelease,
    LoadedRelease,
    RuntimeStatus,
    ShadowOrder,
    ShadowReport,
)

if TYPE_CHECKING:
    from edge_agent.inference.tracing import Traces

logger = logging.getLogger(__name__)

WHOLE_SET = "active.json"
"""Key in `DataPlane.failed` when not even the list of what was committed could be read."""

DRAIN_TIMEOUT_S = 20.0
_MAX_HELD = 1024


class DataPlane:
    """The releases in memory and the calls on them."""

    def __init__(
        self,
        *,
        loader: ReleaseLoader,
        clock: Clock,
        workers: int,
        policy: ExecutionPolicy | None = None,
    ) -> None:
        """Start with nothing.

        Args:
            loader: makes releases of files; loads only ever in one thread of ours.
            clock: times calls.
            workers: how many calls may run beside the event loop at once.
            policy: limits on queues and memory; by default there are none worth the name.
        """
        self._loader = loader
        self._clock = clock
        self._workers = Workers(workers)
        self._policy = policy or ExecutionPolicy(
            limits=lambda _: QueueLimits(instances=workers), memory=MemoryPolicy()
        )
        self._lone_caller = LoneCaller()
        self._lull = Lull(clock)
        self._loading_thread = LoadingThread(loader, clock=clock, lull=self._lull)
        self._loading = asyncio.Lock()
        self._held: dict[tuple[str, str], ServedRelease] = {}
        self._active: dict[str, ServedRelease] = {}
        self._sleep = Sleep(
            policy=self._policy.memory,
            load=self.load,
            activate=self.activate,
            unload=self.unload,
        )
        self._shadows = Shadows(clock)
        self._departures = Departures(self._close_release)
        self.failed: dict[str, str] = {}
        self.traces: Traces | None = None
        """Take a record of each call; None where nobody asked for them."""
        self.accepting = True
        self.settings_problem = ""

    def begin(
        self,
        served: ServedRelease,
        *,
        started: float,
        counted: bool,
        traceparent: str = "",
        caller: object = None,
    ) -> Call:
        """Begin a call on a release; see `Call`, and `LoneCaller` for the caller."""
        call = Call(served, started=started, counted=counted, clock=self._clock)
        if counted:
            call.alone = self._lone_caller.is_alone(caller, started)
            call.at_end = self._lull.call_ended
        if self.traces is not None and counted:
            call.trace(self.traces, traceparent)
        return call

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
            AsleepError: it has left memory; it is being loaded, `awake` waits for it.
        """
        served = self._active.get(family)
        if served is None:
            self._sleep.called(family)
            if family in self.failed:
                raise UnavailableError(
                    f"model {family!r} is assigned to this device but could not be loaded: "
                    f"{self.failed[family]}"
                )
            if WHOLE_SET in self.failed:
                raise UnavailableError(
                    f"nobody knows whether model {family[:80]!r} is assigned to this device: "
                    f"{self.failed[WHOLE_SET]}"
                )
            raise UnknownModelError(
                f"no model {family[:80]!r} here; this device serves: {self._names()}"
            )
        return _of_version(served, version)

    def described(self, family: str, version: str | None = None) -> ServedRelease:
        """Return the release that answers for a family; one that is asleep is left asleep.

        Raises:
            UnknownModelError: as `active`.
            UnavailableError: likewise.
        """
        asleep = self._sleep.get(family)
        return self.active(family, version) if asleep is None else _of_version(asleep, version)

    async def awake(self, family: str) -> None:
        """Wait until a family that was asleep has been loaded, or could not be.

        Raises:
            AsleepError: there is no room for it, but will be soon.
            UnavailableError: it could not be; the next call tries again.
        """
        await self._sleep.awake(family)

    def held(self, family: str, version: str) -> ServedRelease:
        """Return a loaded release, active or not.

        Raises:
            UnknownModelError: it is not loaded.
        """
        served = self._held.get((family, version))
        if served is None:
            raise UnknownModelError(f"{family[:80]!r} {version[:40]!r} is not loaded")
        return served

    def versions(self, family: str) -> list[str]:
        """Return the versions of a family that are loaded or asleep, the one that answers first."""
        answering = self._active.get(family) or self._sleep.get(family)
        ordered = [answering] if answering is not None else []
        ordered += [served for served in self._family(family) if served is not answering]
        return list(dict.fromkeys(served.release.version for served in ordered))

    @property
    def families(self) -> list[str]:
        """The families that are served, those asleep among them, in order of their names."""
        return sorted({*self._active, *self._sleep.families})

    def statistics(self, served: ServedRelease) -> ModelStatistics:
        """Return what a release has done since it was loaded."""
        return served.statistics.snapshot(
            name=served.release.family,
            version=served.release.version,
            now=self._clock(),
            memory_bytes=0 if served.asleep else served.memory_bytes,
        )

    def is_active(self, served: ServedRelease) -> bool:
        """Say whether a release is the one that answers for its family."""
        return self._active.get(served.release.family) is served

    @property
    def memory_budget_bytes(self) -> int:
        """How much memory all models may take."""
        return self._policy.memory.budget_bytes

    @property
    def cache(self) -> ResponseCache | None:
        """The kept answers, None where none are kept."""
        return self._policy.cache

    @property
    def resident(self) -> list[ServedRelease]:
        """All releases that take memory, those on their way out among them."""
        return [*self._held.values(), *self._departures.releases]

    @property
    def problems(self) -> dict[str, str]:
        """Why families that were committed to are not served; those that cannot wake among them."""
        return {**self.failed, **self._sleep.stuck}

    @property
    def ready(self) -> bool:
        """True while everything that was committed is served and calls are accepted."""
        return self.accepting and not self.problems

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
            releases=[self._loaded(served) for served in (*self._held.values(), *self._sleep)],
            resident_bytes=resident_bytes(),
            backends={found.backend: found.version for found in placements if not found.problem},
            failed=self.problems,
            placements=placements,
            memory_budget_bytes=self._policy.memory.budget_bytes,
            model_memory_bytes={served.name: served.memory_bytes for served in self.resident},
            asleep=self._sleep.families,
            running_s={
                served.name: lasts_s for served in self.resident if (lasts_s := served.running_s)
            },
            loading_s=self._loading_thread.loading_s,
            settings_problem=self.settings_problem,
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
                limits = self._policy.limits(release)
                await self._make_room(release, limits.wanted_instances)
                served = await self._loading_thread.load(
                    release,
                    instances=limits.wanted_instances,
                    batched=limits.max_batch > 1,
                    beside_calls=bool(self._active),
                    before=self._asleep(release),
                )
                served.open(
                    limits=limits,
                    workers=self._workers,
                    clock=self._clock,
                    cache=self._policy.cache,
                )
                self._held[key] = served
                logger.info("release_loaded", extra=served.log_fields)
        if _identity(served.release) != _identity(release):
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
        asleep = self._sleep.get(family)
        if (
            asleep is not None
            and asleep.release.version == version
            and (family, version) not in self._held
        ):
            return self._loaded(asleep)  # it is already what shall answer, once somebody calls
        served = self.held(family, version)
        self._active[family] = served
        self._shadows.activated(served)
        self._sleep.end(family)
        self.failed.pop(family, None)
        # Control has taken over where the file could not say what to serve.
        self.failed.pop(WHOLE_SET, None)
        logger.info("release_activated", extra=served.log_fields)
        return self._loaded(served)

    def shadow(self, family: str, order: ShadowOrder) -> ShadowReport:
        """Let a loaded release answer live requests unseen; the same order again only reports.

        Raises:
            UnknownModelError: it is not loaded, or nothing serves.
            ConflictError: it serves itself, or its answers cannot be compared.
        """
        return self._shadows.report(self.held(family, order.version), order, self.active(family))

    async def unload(self, family: str, version: str, timeout_s: float = DRAIN_TIMEOUT_S) -> int:
        """Drain and unload a release; return how many were there (0 or 1).

        Raises:
            ConflictError: it is active.
            UnavailableError: calls are still in flight; the release goes when they end.
        """
        served = self._held.get((family, version))
        asleep = self._sleep.get(family)
        if served is None and (asleep is None or asleep.release.version != version):
            return 0
        if served is None or self._active.get(family) is served:
            raise ConflictError(
                f"{family} {version} is active; activate another version first, or stop "
                "serving the family"
            )
        await self._departures.gone([self._out_of_reach(served)], timeout_s)
        return 1

    async def unload_family(self, family: str, timeout_s: float = DRAIN_TIMEOUT_S) -> int:
        """Stop serving a family and unload its releases; return how many were loaded.

        Raises:
            UnavailableError: calls are still in flight; see `unload`.
        """
        self._active.pop(family, None)
        self._sleep.end(family)
        self.failed.pop(family, None)
        leaving = [self._out_of_reach(served) for served in self._family(family)]
        await self._departures.gone(leaving, timeout_s)
        return len(leaving)

    async def close(self, timeout_s: float) -> bool:
        """Unload everything; return False if calls still ran when the time was over."""
        self.accepting = False
        self._active.clear()
        self._sleep.close()
        for served in list(self._held.values()):
            self._departures.start(self._out_of_reach(served))
        if not await self._departures.all_gone(timeout_s):
            return False
        self._workers.close()
        self._loading_thread.end()
        return True

    def _out_of_reach(self, served: ServedRelease) -> ServedRelease:
        """Make sure that no new call can begin on a release."""
        self._held.pop((served.release.family, served.release.version), None)
        self._shadows.left(served)
        return served

    async def _close_release(self, served: ServedRelease) -> None:
        served.scheduler.close()
        await self._loading_thread.close(served)
        if self._policy.cache is not None:
            self._policy.cache.forget(served.serial)
        logger.info("release_unloaded", extra=served.log_fields)

    async def _make_room(self, release: ActiveRelease, instances: int) -> None:
        """Let idle models leave if a new one needs their memory."""
        need = await self._loading_thread.memory_needed(release, instances=instances)
        leaving = self._sleep.who_leaves(
            release, need, self.resident, self._departures.releases, self.is_active
        )
        # All at once: while one of them goes, control may replace or stop serving another.
        for served in leaving:
            del self._active[served.release.family]
            self._sleep.begin(served)
        await asyncio.gather(
            *(self._departures.start(self._out_of_reach(served)) for served in leaving)
        )

    def _asleep(self, release: ActiveRelease) -> ServedRelease | None:
        """Return the sleeping release that is this one."""
        served = self._sleep.get(release.family)
        return served if served and _identity(served.release) == _identity(release) else None

    def _family(self, family: str) -> list[ServedRelease]:
        return [served for served in self._held.values() if served.release.family == family]

    def _names(self) -> str:
        return ", ".join(self.families[:20]) or "no model yet"

    def _loaded(self, served: ServedRelease) -> LoadedRelease:
        release = served.release
        return LoadedRelease(
            family=release.family,
            version=release.version,
            variant=release.variant,
            backend=served.backend_name,
            accelerator=release.accelerator,
            active=served in (self._active.get(release.family), self._sleep.get(release.family)),
            choice=release.choice,
        )


def _of_version(served: ServedRelease, version: str | None) -> ServedRelease:
    if version is not None and served.release.version != version:
        raise UnknownModelError(
            f"model {served.release.family!r} has no active version {version[:40]!r}; active is "
            f"{served.release.version}"
        )
    return served


def _identity(release: ActiveRelease) -> ActiveRelease:
    """Return a release without what is said about it: the part that decides what is loaded."""
    return msgspec.structs.replace(release, choice="", memory_bytes=0)

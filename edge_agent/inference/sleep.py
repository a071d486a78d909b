"""Active models that have left memory for others: who leaves, and how a call wakes them.

A sleeping family is still what the device serves: it is loaded again by its next call. What is in
memory, and how it comes and goes, is `edge_agent.inference.data_plane`'s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

from edge_agent.inference.errors import (
    AsleepError,
    ConflictError,
    InferenceError,
    NoRoomError,
    UnavailableError,
)
from edge_agent.inference.memory_budget import Holding, MemoryPolicy, Need, room_for
from edge_agent.inference.served_release import ServedRelease
from edge_agent.runtime_api import ActiveRelease

logger = logging.getLogger(__name__)


class Sleep:
    """The families that are asleep. Belongs to the event loop."""

    def __init__(
        self,
        *,
        policy: MemoryPolicy,
        load: Callable[[ActiveRelease], Awaitable[object]],
        activate: Callable[[str, str], object],
        unload: Callable[[str, str], Awaitable[object]],
    ) -> None:
        """Let nobody sleep yet.

        Args:
            policy: how much memory there is, and whether idle models may leave it.
            load: brings a release back into memory.
            activate: lets the given version answer for the given family.
            unload: takes a version that nobody wants any more out of memory again.
        """
        self._policy = policy
        self._load = load
        self._activate = activate
        self._unload = unload
        self.stuck: dict[str, str] = {}
        """Families that could not be woken when they were last called, and why."""
        self._asleep: dict[str, ServedRelease] = {}
        self._waking: dict[str, asyncio.Task[InferenceError | None]] = {}

    def __contains__(self, family: str) -> bool:
        return family in self._asleep

    def __iter__(self) -> Iterator[ServedRelease]:
        return iter(self._asleep.values())

    @property
    def families(self) -> list[str]:
        """The families that are asleep, in order of their names."""
        return sorted(self._asleep)

    def get(self, family: str) -> ServedRelease | None:
        """Return the release of a family that is asleep, whose model is closed."""
        return self._asleep.get(family)

    def who_leaves(
        self,
        newcomer: ActiveRelease,
        need: Need,
        resident: Sequence[ServedRelease],
        departing: Sequence[ServedRelease],
        active: Callable[[ServedRelease], bool],
    ) -> list[ServedRelease]:
        """Return those that must leave memory so that a release fits.

        Args:
            newcomer: the release.
            need: what it will take.
            resident: all that take memory, those on their way out among them.
            departing: those on their way out.
            active: says whether one of them answers for its family.

        Raises:
            LoadError: it does not fit even if all leave that may; the message has the figures.
        """
        holdings: dict[Holding, ServedRelease] = {}
        for served in resident:
            may_sleep = (
                self._policy.evict_idle
                # The old version stays until the new one of its family has proved itself.
                and served.release.family != newcomer.family
                and active(served)
            )
            holding = Holding(
                family=served.release.family,
                version=served.release.version,
                memory_bytes=served.memory_bytes,
                used_at=served.used_at,
                may_leave=may_sleep and served.in_flight == 0,
                leaves_soon=may_sleep or served in departing,
            )
            holdings[holding] = served
        leaving = room_for(
            f"{newcomer.family} {newcomer.version}",
            need,
            list(holdings),
            budget_bytes=self._policy.budget_bytes,
        )
        return [holdings[holding] for holding in leaving]

    def begin(self, served: ServedRelease) -> None:
        """Take note of an active release that leaves memory now."""
        served.asleep = True
        self._asleep[served.release.family] = served
        logger.info("release_asleep", extra=served.log_fields)

    def end(self, family: str) -> None:
        """Forget a family: it is awake, or no longer served."""
        self.stuck.pop(family, None)
        if (served := self._asleep.pop(family, None)) is not None:
            served.end_counting()

    def called(self, family: str) -> None:
        """Begin to wake a family if it is asleep.

        Raises:
            AsleepError: it is; `awake` waits for it.
        """
        if family in self._asleep:
            self._wake(family)
            raise AsleepError(
                f"model {family!r} had left memory because it was idle; it is being loaded, "
                "call again in a moment",
                retry_after_s=1.0,
            )

    async def awake(self, family: str) -> None:
        """Wait until a family that was asleep has been loaded, or could not be.

        Raises:
            AsleepError: there is no room for it, but will be soon.
            UnavailableError: it could not be; the next call tries again.
        """
        if family not in self._asleep:
            return
        problem = await asyncio.shield(self._wake(family))
        if problem is None:
            return
        message = (
            f"model {family!r} had left memory because it was idle and could not be loaded again: "
            f"{problem}"
        )
        if isinstance(problem, NoRoomError) and problem.retry_after_s is not None:
            raise AsleepError(
                f"{message}; those in use may leave in a moment, call again then",
                retry_after_s=problem.retry_after_s,
            )
        raise UnavailableError(message)

    def close(self) -> None:
        """Wake nobody any more."""
        for family in self.families:
            self.end(family)
        for waking in self._waking.values():
            waking.cancel()

    def _wake(self, family: str) -> asyncio.Task[InferenceError | None]:
        task = self._waking.get(family)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._reload(self._asleep[family]))
            self._waking[family] = task
            task.add_done_callback(lambda _: self._waking.pop(family, None))
        return task

    async def _reload(self, asleep: ServedRelease) -> InferenceError | None:
        """Load what is asleep; return why it could not be, None if it is awake."""
        release = asleep.release
        try:
            await self._load(release)
        except InferenceError as error:
            logger.error(  # noqa: TRY400 (no bug of ours; the message says all)
                "release_not_loaded", extra={**asleep.log_fields, "reason": str(error)}
            )
            # Whoever has the room now may leave it the next moment.
            if self._is_asleep(asleep) and not isinstance(error, NoRoomError):
                self.stuck[release.family] = str(error)
            return error
        if self._is_asleep(asleep):
            del self._asleep[release.family]
            self._activate(release.family, release.version)
        else:
            # Meanwhile the family was given another version, or is served no more; unless it was
            # given this very one, which then stays.
            with suppress(ConflictError, UnavailableError):
                await self._unload(release.family, release.version)
        return None

    def _is_asleep(self, served: ServedRelease) -> bool:
        return self._asleep.get(served.release.family) is served

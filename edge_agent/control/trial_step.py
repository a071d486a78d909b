"""The steps after the download: trial, shadowing, switch, probation, and the way back."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from edge_agent.control.choosing import Choosing
from edge_agent.control.clock import Clock
from edge_agent.control.counter_files import CounterFiles
from edge_agent.control.golden import GoldenCheckError
from edge_agent.control.install_rule import InstallRefusedError
from edge_agent.control.journal import MAX_ATTEMPTS, UpdateRecord, candidate_of
from edge_agent.control.ledger import Ledger
from edge_agent.control.pauses import Pauses
from edge_agent.control.probation import Judgement, Verdict, health, judge
from edge_agent.control.runtime_client import (
    RuntimeFaultError,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.control.shadowing import conclude
from edge_agent.control.trial import NotEnoughMemoryError, Trial
from edge_agent.errors import AgentError
from edge_agent.runtime_api import ActiveRelease
from edge_agent.store import StoreError
from fleet_protocol.update_states import UpdateState

logger = logging.getLogger(__name__)


class NotCountedError(AgentError):
    """Nobody could tell how the candidate serves."""


_OF_THE_DEVICE = (RuntimeFaultError, NotEnoughMemoryError, NotCountedError, StoreError)


def resting_name(family: str) -> str:
    """Return under which name the trials of a family rest; a download in between ends no pause."""
    return f"{family} trial"


class TrialStep:
    """Runs records in `VERIFIED`, `TRIAL` and `PROBATION`; may raise `StoreError`."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        trial: Trial,
        choosing: Choosing,
        counters: CounterFiles,
        ledger: Ledger,
        clock: Clock,
        pauses: Pauses,
        probation_s: float,
        hang_s: float,
    ) -> None:
        self._trial = trial
        self._choosing = choosing
        self._counters = counters
        self._ledger = ledger
        self._clock = clock
        self._pauses = pauses
        self._probation_s = probation_s
        self._hang_s = hang_s
        self._unwritten: dict[str, tuple[UpdateRecord, str, bool]] = {}

    async def run(self, record: UpdateRecord, committed: ActiveRelease | None) -> None:
        """Try a candidate: it shadows or serves afterwards, has failed, or is tried again."""
        if record.state is UpdateState.VERIFIED:
            record = await self._ledger.move(
                record, UpdateState.TRIAL, attempts=record.attempts + 1
            )
        else:
            record = await self._ledger.amend(record, attempts=record.attempts + 1)
        # Days may have passed since the files were verified.
        if await self._fetched_anew(record):
            return
        async with self._interruptible(record, committed):
            record = await self._choosing.decided(record)
            candidate = candidate_of(record)
            epoch = await asyncio.to_thread(self._trial.check, candidate)
            await self._check_counted(record, epoch)
            shadowing = candidate.acceptance.shadow
            if shadowing is None or committed is None or committed.version == record.version:
                await self._switch(record, epoch, committed, detail="")
                return
            await asyncio.to_thread(self._trial.shadow, candidate.release, epoch, shadowing)
            await self._ledger.amend(
                record, shadow_epoch=epoch, shadow_since_s=self._clock.monotonic_s()
            )
            logger.info("release_shadows", extra=_fields(record))

    async def compare(self, record: UpdateRecord, committed: ActiveRelease | None) -> bool:
        """Look how a candidate that shadows agrees; return whether that is decided."""
        candidate = candidate_of(record)
        shadowing = candidate.acceptance.shadow
        if shadowing is None:
            raise AssertionError(f"{record.family} {record.version} shadows without being asked to")
        disagreement = ""
        async with self._interruptible(record, committed):
            report = await asyncio.to_thread(
                self._trial.shadow, candidate.release, record.shadow_epoch, shadowing
            )
            elapsed_s = self._clock.monotonic_s() - record.shadow_since_s
            found = conclude(report, shadowing, elapsed_s=elapsed_s, hang_s=self._hang_s)
            if found.passed is None:
                return False
            if found.passed:
                await self._switch(record, record.shadow_epoch, committed, detail=found.detail)
                return True
            disagreement = found.detail
        if disagreement:
            await self.give_up(record, disagreement, retry=False, committed=committed)
        return True

    async def watch(self, record: UpdateRecord, committed: ActiveRelease | None) -> Judgement:
        """Judge the candidate on probation; roll it back if it is unhealthy."""
        counts = await asyncio.to_thread(self._counters.counts)
        previous = None
        if committed is not None and committed.version != record.version:
            previous = health(record.epoch, record.family, committed.version, counts)
        result = judge(
            health(record.epoch, record.family, record.version, counts),
            previous,
            candidate_of(record).acceptance,
            elapsed_s=self._clock.monotonic_s() - record.switched_s,
            probation_s=self._probation_s,
        )
        if result.verdict is Verdict.ROLL_BACK:
            retry = result.retry and record.attempts < MAX_ATTEMPTS
            await self.give_up(record, result.reason, retry=retry, committed=committed)
        return result

    @contextlib.asynccontextmanager
    async def _interruptible(
        self, record: UpdateRecord, committed: ActiveRelease | None
    ) -> AsyncIterator[None]:
        """Settle what a step of the trial raises.

        What this device failed at is no attempt: it is tried again for as long as it takes, with
        pauses, and the operator is told meanwhile. A runtime that dies may have died of the
        candidate, so that counts. What the candidate did from its own bytes is final.
        """
        try:
            yield
        except _OF_THE_DEVICE as error:
            record = await self._ledger.refreshed(record)
            if not await self._fetched_anew(record):
                await self._put_aside(record, committed)
                await self._interrupted(record, error, forgiven=True)
        except RuntimeUnavailableError as error:
            record = await self._ledger.refreshed(record)
            await self._interrupted(record, error, forgiven=False)
        except (GoldenCheckError, RuntimeRefusedError, InstallRefusedError) as error:
            record = await self._ledger.refreshed(record)
            if not await self._fetched_anew(record):
                await self.give_up(record, str(error), retry=False, committed=committed)

    async def _interrupted(
        self, record: UpdateRecord, error: AgentError, *, forgiven: bool
    ) -> None:
        """Leave the trial for later; what it waits for stands in the journal."""
        self._pauses.failed(resting_name(record.family))
        logger.warning("trial_interrupted", extra=_fields(record, reason=str(error)))
        await self._ledger.amend(
            record,
            attempts=_forgiven(record) if forgiven else record.attempts,
            trying=-1 if forgiven else record.trying,
            detail=str(error)[:1000],
            shadow_epoch="",
        )

    async def _put_aside(self, record: UpdateRecord, committed: ActiveRelease | None) -> None:
        """Unload the candidate while it waits; what it lacked, it may get with the next load."""
        release = candidate_of(record).release
        try:
            await asyncio.to_thread(self._trial.withdraw, release, committed)
        except (RuntimeUnavailableError, RuntimeRefusedError) as error:
            logger.info("candidate_not_put_aside", extra=_fields(record, reason=str(error)))

    async def _fetched_anew(self, record: UpdateRecord) -> bool:
        """Go back to the download if the candidate's files are no longer what was verified."""
        damage = await asyncio.to_thread(self._trial.damage, candidate_of(record))
        if not damage:
            return False
        self._pauses.failed(resting_name(record.family))
        logger.warning("candidate_damaged", extra=_fields(record, reason=damage))
        await self._ledger.move(
            record,
            UpdateState.DOWNLOADING,
            detail=f"{damage}; it is fetched anew",
            attempts=_forgiven(record),
            candidate=None,
            epoch="",
            shadow_epoch="",
            trying=-1,
            excluded={},
        )
        return True

    async def _check_counted(self, record: UpdateRecord, epoch: str) -> None:
        """Refuse to switch to what could not be judged: the runtime serves it without counting."""
        counts = await asyncio.to_thread(self._counters.counts)
        if health(epoch, record.family, record.version, counts) is None:
            raise NotCountedError(
                "the runtime has no counter file for it, so nobody could tell how it serves; "
                "is there room in run/?"
            )

    async def _switch(
        self, record: UpdateRecord, epoch: str, committed: ActiveRelease | None, *, detail: str
    ) -> None:
        await asyncio.to_thread(self._trial.switch_to, candidate_of(record).release, epoch)
        try:
            await self._ledger.move(
                record,
                UpdateState.PROBATION,
                detail=detail[:1000],
                epoch=epoch,
                switched_s=self._clock.monotonic_s(),
            )
        except StoreError:
            # What the journal does not have on probation, nobody would watch. If this fails too,
            # the reconciler finds a candidate that serves in its trial and does the same.
            logger.warning("switch_not_noted", extra=_fields(record))
            await asyncio.to_thread(self._trial.put_back, record.family, committed)
            raise
        logger.info("release_switched", extra=_fields(record))

    async def give_up(
        self, record: UpdateRecord, reason: str, *, retry: bool, committed: ActiveRelease | None
    ) -> None:
        """Settle a record as failed or rolled back; what was committed serves before that.

        A journal without room does not hold that up. What was said first is written once there is
        room: the looks in between see no more than a candidate that does not serve.
        """
        said_of, said, again = self._unwritten.get(record.family, (None, "", False))
        if said_of == record:
            reason, retry = said, again
        state = UpdateState.FAILED
        if record.state is UpdateState.PROBATION:
            state = UpdateState.ROLLED_BACK
        if record.state in {UpdateState.TRIAL, UpdateState.PROBATION}:
            try:
                await asyncio.to_thread(
                    self._trial.withdraw, candidate_of(record).release, committed
                )
            except RuntimeUnavailableError as error:
                if state is UpdateState.ROLLED_BACK:
                    self._pauses.failed(record.family)
                    logger.warning("roll_back_waits", extra=_fields(record, reason=str(error)))
                    return
            except RuntimeRefusedError as error:
                # The reconciler goes on asking for the committed release until it serves.
                logger.error("roll_back_refused", extra=_fields(record, reason=str(error)))  # noqa: TRY400 (the runtime's words say it)
        self._unwritten[record.family] = record, reason, retry
        await self._ledger.move(record, state, detail=reason[:4000], retry=retry)
        del self._unwritten[record.family]
        logger.warning("release_withdrawn", extra=_fields(record, state=state, reason=reason))

    async def serve(self, release: ActiveRelease) -> None:
        """Let a committed release serve.

        Raises:
            RuntimeRefusedError: the runtime cannot.
            RuntimeUnavailableError: the runtime does not answer.
        """
        try:
            await asyncio.to_thread(self._trial.serve, release)
        except (RuntimeUnavailableError, RuntimeRefusedError) as error:
            logger.error(  # noqa: TRY400 (the runtime's words say it)
                "committed_release_not_served",
                extra={
                    "family": release.family,
                    "version": release.version,
                    "reason": str(error),
                },
            )
            raise


def _forgiven(record: UpdateRecord) -> int:
    """Return the attempts of a record without the one that is under way."""
    return max(0, record.attempts - 1)


def _fields(record: UpdateRecord, **more: str) -> dict[str, str]:
    return {"family": record.family, "version": record.version, **more}

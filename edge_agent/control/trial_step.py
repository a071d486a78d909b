"""The steps after the download: trial, switch, probation, and the way back."""

import asyncio
import logging

from edge_agent.control.choosing import Choosing
from edge_agent.control.clock import Clock
from edge_agent.control.counter_files import CounterFiles
from edge_agent.control.golden import GoldenCheckError
from edge_agent.control.install_rule import InstallRefusedError
from edge_agent.control.journal import UpdateRecord, candidate_of
from edge_agent.control.ledger import Ledger
from edge_agent.control.pauses import Pauses
from edge_agent.control.probation import Verdict, health, verdict
from edge_agent.control.runtime_client import RuntimeRefusedError, RuntimeUnavailableError
from edge_agent.control.trial import NotEnoughMemoryError, Trial
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.update_states import UpdateState

logger = logging.getLogger(__name__)


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
    ) -> None:
        self._trial = trial
        self._choosing = choosing
        self._counters = counters
        self._ledger = ledger
        self._clock = clock
        self._pauses = pauses
        self._probation_s = probation_s

    async def run(self, record: UpdateRecord, committed: ActiveRelease | None) -> None:
        """Try a candidate: it serves on probation afterwards, has failed, or is tried again."""
        if record.state is UpdateState.VERIFIED:
            record = await self._ledger.move(
                record, UpdateState.TRIAL, attempts=record.attempts + 1
            )
        else:
            record = await self._ledger.amend(record, attempts=record.attempts + 1)
        try:
            record = await self._choosing.decided(record)
            epoch = await asyncio.to_thread(self._trial.switch_to, candidate_of(record))
        except (RuntimeUnavailableError, NotEnoughMemoryError) as error:
            self._pauses.failed(record.family)
            logger.warning("trial_interrupted", extra=_fields(record, reason=str(error)))
            record = await self._ledger.refreshed(record)
            await self._ledger.amend(record, detail=str(error)[:1000])
        except (GoldenCheckError, RuntimeRefusedError, InstallRefusedError) as error:
            record = await self._ledger.refreshed(record)
            await self.give_up(record, str(error), retry=False, committed=committed)
        else:
            await self._ledger.move(
                record,
                UpdateState.PROBATION,
                epoch=epoch,
                switched_s=self._clock.monotonic_s(),
            )
            logger.info("release_switched", extra=_fields(record))

    async def watch(self, record: UpdateRecord, committed: ActiveRelease | None) -> Verdict:
        """Judge the candidate on probation; roll it back if it is unhealthy."""
        counts = await asyncio.to_thread(self._counters.counts)
        seen = health(record, counts)
        max_error_rate = candidate_of(record).max_error_rate
        result = verdict(
            seen,
            max_error_rate=max_error_rate,
            elapsed_s=self._clock.monotonic_s() - record.switched_s,
            probation_s=self._probation_s,
        )
        if result is Verdict.ROLL_BACK:
            reason = (
                f"{seen.errors} of {seen.requests} calls failed in the backend during the "
                f"probation, allowed are {max_error_rate:.1%}"
            )
            await self.give_up(record, reason, retry=False, committed=committed)
        return result

    async def give_up(
        self, record: UpdateRecord, reason: str, *, retry: bool, committed: ActiveRelease | None
    ) -> None:
        """Settle a record as failed or rolled back; what was committed serves before that."""
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
        await self._ledger.move(record, state, detail=reason[:4000], retry=retry)
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


def _fields(record: UpdateRecord, **more: str) -> dict[str, str]:
    return {"family": record.family, "version": record.version, **more}

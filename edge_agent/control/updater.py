"""The updater: looks, lets `reconcile` decide, does it, looks again.

It owns ``active.json`` and drives the journal. What it does may be cut short at any point; the next
look finds a situation that `reconcile` continues or undoes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edge_agent.control import repairing, trial_step
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.blob_audit import BlobAudit
from edge_agent.control.download import BlobStore
from edge_agent.control.fetch_step import FetchStep
from edge_agent.control.fetching import Fetching
from edge_agent.control.journal import UpdateRecord, candidate_of, files_needed
from edge_agent.control.ledger import Ledger, StaleRecordError
from edge_agent.control.lookout import Lookout
from edge_agent.control.observation import Observation
from edge_agent.control.pauses import Pauses
from edge_agent.control.probation import Verdict
from edge_agent.control.pulse import Pulse
from edge_agent.control.reconcile import (
    Action,
    Begin,
    Commit,
    Compare,
    Fetch,
    GiveUp,
    Remove,
    Repair,
    Serve,
    Situation,
    StopFamily,
    Try,
    Unload,
    Watch,
    reconcile,
)
from edge_agent.control.repairing import RepairStep
from edge_agent.control.runtime_client import (
    Runtime,
    RuntimeFaultError,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.control.trial_step import TrialStep
from edge_agent.runtime_api import ActiveRelease
from edge_agent.store import StoreError

logger = logging.getLogger(__name__)

_IDLE_POLL_S = 2.0
_BUSY_POLL_S = 0.5
_COLLECTING = "superfluous files"  # under this name it rests; no family has a blank in its name


class Updater:
    """Carries out what `reconcile` says."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        lookout: Lookout,
        observation: Observation,
        ledger: Ledger,
        active_set: ActiveSetFile,
        blobs: BlobStore,
        audit: BlobAudit,
        runtime: Runtime,
        fetch_step: FetchStep,
        repair_step: RepairStep,
        trial_step: TrialStep,
        pauses: Pauses,
        accepted: Pulse,
        keep_high_water: Callable[[], Awaitable[None]],
        at_rest: Callable[[], None],
    ) -> None:
        """Take the parts.

        ``accepted`` tells of assignments, ``keep_high_water`` follows commits, ``at_rest`` is
        called, in a thread, when there is nothing left to do after a change.
        """
        self._lookout = lookout
        self._observation = observation
        self._ledger = ledger
        self._active_set = active_set
        self._blobs = blobs
        self._audit = audit
        self._runtime = runtime
        self._fetching = Fetching(fetch_step.run)
        self._repairing = Fetching(repair_step.run)
        self._trial_step = trial_step
        self._pauses = pauses
        self._accepted = accepted
        self._keep_high_water = keep_high_water
        self._at_rest = at_rest
        self._tidy = False

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            seen = self._accepted.count
            while True:
                progress = await self.round()
                if not progress:
                    await self._accepted.changed(seen, timeout_s=self._poll_s())
                if seen != self._accepted.count:
                    seen = self._accepted.count
                    self._pauses.clear()
        finally:
            await self.stop_downloads()

    async def stop_downloads(self) -> None:
        """Cancel the downloads under way and wait for their end."""
        await self._fetching.stop()
        await self._repairing.stop()

    async def downloads_finished(self) -> None:
        """Wait until no download is under way."""
        await self._fetching.finished()
        await self._repairing.finished()

    async def round(self) -> bool:
        """Look once and do what is to do; return whether anything was done.

        Raises:
            AgentError: disk or ``active.json`` do not allow to look.
        """
        situation = await self._lookout.look()
        self._observation.see(situation)
        actions = reconcile(situation)
        self._fetching.keep_only(
            [situation.records[action.family] for action in actions if isinstance(action, Fetch)]
        )
        self._repairing.keep_only([action for action in actions if isinstance(action, Repair)])
        progress = False
        for action in actions:
            if not self._pauses.resting(_rests_as(action)):
                progress |= await self._do(action, situation)
        if actions:  # done or not: a commit that failed may have reached the disk
            self._tidy = False
        else:
            await self._collect(situation)
            await self._look_after_files(situation)
        return progress

    def _poll_s(self) -> float:
        situation = self._observation.situation
        busy = situation is not None and any(
            not record.settled and not situation.held_back(record)
            for record in situation.records.values()
        )
        return _BUSY_POLL_S if busy else _IDLE_POLL_S

    async def _do(self, action: Action, situation: Situation) -> bool:
        """Carry out one action; return whether to look again at once."""
        try:
            return await self._carry_out(action, situation)
        except StaleRecordError:
            return True
        except (StoreError, RuntimeUnavailableError, RuntimeRefusedError) as error:
            self._pauses.failed(_rests_as(action))
            if isinstance(error, StoreError):
                self._observation.note(_family(action), str(error))
            logger.warning(
                "action_failed",
                extra={
                    "action": type(action).__name__,
                    "family": _family(action),
                    "reason": str(error),
                },
            )
            return False

    async def _carry_out(self, action: Action, situation: Situation) -> bool:
        match action:
            case Remove(family):
                await self._remove(family)
            case Serve(release):
                await self._serve(release)
            case StopFamily(family):
                await asyncio.to_thread(self._runtime.stop_family, family)
            case Unload(family, version):
                await asyncio.to_thread(self._runtime.unload, family, version)
            case Begin(release) if situation.assignment is not None:
                await self._ledger.begin(release, assignment_version=situation.assignment.version)
            case Repair():
                self._repairing.start(action)
                return False
            case Fetch() | Try() | Compare() | Watch() | Commit() | GiveUp():
                return await self._advance(action, situation)
        return True

    async def _advance(
        self, action: Fetch | Try | Compare | Watch | Commit | GiveUp, situation: Situation
    ) -> bool:
        """Take an update one step further; return whether to look again at once."""
        record = situation.records[action.family]
        committed = situation.active.get(action.family)
        match action:
            case Fetch():
                self._fetching.start(record)
                return False
            case Watch():
                return await self._watch(record, committed)
            case Compare():
                return await self._trial_step.compare(record, committed)
            case Try():
                await self._trial_step.run(record, committed)
            case Commit():
                await self._commit(record)
            case GiveUp(_, reason, retry):
                await self._trial_step.give_up(record, reason, retry=retry, committed=committed)
        return True

    async def _watch(self, record: UpdateRecord, committed: ActiveRelease | None) -> bool:
        result = await self._trial_step.watch(record, committed)
        if result.verdict is Verdict.COMMIT:
            await self._commit(record, detail=result.reason)
        return result.verdict is not Verdict.GO_ON

    async def _commit(self, record: UpdateRecord, *, detail: str = "") -> None:
        # active.json first: a device that dies now boots the release, and finishes the commit.
        await asyncio.to_thread(self._active_set.put, candidate_of(record).release)
        await self._ledger.commit(record, detail=detail[:4000])
        await self._keep_high_water()
        for name in (
            record.family,
            _serving(record.family),
            trial_step.resting_name(record.family),
        ):
            self._pauses.succeeded(name)
        logger.info("release_committed", extra={"family": record.family, "version": record.version})

    async def _serve(self, release: ActiveRelease) -> None:
        try:
            await self._trial_step.serve(release)
        except (RuntimeFaultError, RuntimeRefusedError):
            # Either its file has rotted, which a new download cures, or it is worth trying again.
            await asyncio.to_thread(self._audit.examine, release)
            raise
        self._pauses.succeeded(_rests_as(Serve(release)))

    async def _remove(self, family: str) -> None:
        # active.json first: a runtime that restarts now does not serve the family any more.
        await asyncio.to_thread(self._active_set.drop, family)
        try:
            await asyncio.to_thread(self._runtime.stop_family, family)
        except RuntimeUnavailableError as error:
            logger.info("family_not_stopped", extra={"family": family, "reason": str(error)})
        await self._ledger.forget(family)
        logger.info("family_removed", extra={"family": family})

    async def _collect(self, situation: Situation) -> None:
        """Remove blobs that nothing refers to, once after each change.

        What the disk refuses is tried again, with pauses, for as long as it takes. A download that
        was cancelled may still leave something, so its end is waited for.
        """
        if self._tidy or not all(record.settled for record in situation.records.values()):
            return
        still_writing = self._fetching.under_way or self._repairing.under_way
        if still_writing or self._pauses.resting(_COLLECTING):
            return
        keep = {release.sha256 for release in situation.active.values()}
        keep.update(files_needed(situation.committed, situation.records))
        try:
            removed = await asyncio.to_thread(self._blobs.collect, keep)
        except StoreError as error:
            self._pauses.failed(_COLLECTING)
            logger.warning("blobs_not_removed", extra={"reason": str(error)})
            return
        self._pauses.succeeded(_COLLECTING)
        self._tidy = True
        await asyncio.to_thread(self._at_rest)
        if removed:
            logger.info("blobs_removed", extra={"files": removed})

    async def _look_after_files(self, situation: Situation) -> None:
        """Read a committed file that this life of the runtime may have loaded with rotten bytes."""
        if situation.runtime is not None:
            releases = list(situation.active.values())
            epoch = situation.runtime.epoch
            await asyncio.to_thread(self._audit.examine_next, releases, epoch=epoch)


def _family(action: Action) -> str:
    if isinstance(action, Begin | Serve):
        return action.release.family
    return action.family


def _rests_as(action: Action) -> str:
    """Return under which name an action rests after a failure.

    Serving and repairing what is committed neither holds an update of the family back nor waits
    for one, nor does taking out of service what is not.
    """
    if isinstance(action, Serve | StopFamily):
        return _serving(_family(action))
    if isinstance(action, Repair):
        return repairing.resting_name(action.family)
    if isinstance(action, Try | Compare):
        return trial_step.resting_name(action.family)
    return _family(action)


def _serving(family: str) -> str:
    return f"{family} serving"

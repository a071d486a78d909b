"""Chooses among the variants that could run here: by measurement, once, and durably.

Before a contender is loaded, the journal says so. A contender that takes the runtime down with it
is therefore known after the restart, is out, and does not get a second chance to.
"""

import asyncio
import logging
from functools import partial

import msgspec

from edge_agent.control import choices
from edge_agent.control.choices import Choice
from edge_agent.control.contest import Contest, DoesNotFitError, winner
from edge_agent.control.golden import GoldenCheckError
from edge_agent.control.journal import Candidate, UpdateRecord, candidate_of
from edge_agent.control.ledger import Ledger
from edge_agent.control.runtime_client import RuntimeFaultError, RuntimeRefusedError
from edge_agent.control.variants import MAX_TEXT
from edge_agent.runtime_api import ActiveRelease

logger = logging.getLogger(__name__)

_REASON_CHARACTERS = 200
_MILLISECOND = 1e-3


class NoneFitsError(GoldenCheckError):
    """Every contender is out; the message has the reason for each."""


class Choosing:
    """Turns a candidate with contenders into one with a release."""

    def __init__(self, *, contest: Contest, ledger: Ledger) -> None:
        self._contest = contest
        self._ledger = ledger

    async def decided(self, record: UpdateRecord) -> UpdateRecord:
        """Return the record with its candidate's variant chosen; it may be chosen already.

        Raises:
            NoneFitsError: all contenders are out.
            RuntimeFaultError: the device has kept every contender from being loaded.
            RuntimeUnavailableError: the runtime died; it is taken up again from the journal.
            StaleRecordError, StoreError: as the ledger has them.
        """
        candidate = candidate_of(record)
        if not candidate.contenders:
            return record
        record = await self._after_a_death(record)
        await asyncio.to_thread(self._contest.clear, record.family)
        faults: dict[int, RuntimeFaultError] = {}
        for at, contender in enumerate(candidate.contenders):
            if at not in record.excluded:
                record = await self._enter(record, at, contender, faults)
        if faults and len(faults) + len(record.excluded) == len(candidate.contenders):
            raise next(iter(faults.values()))  # no variant is at fault: the device is
        for at, fault in faults.items():
            record = await self._exclude(record, at, str(fault))
        chosen = await self._chosen(record, candidate)
        return await self._settle(record, candidate, chosen)

    async def _after_a_death(self, record: UpdateRecord) -> UpdateRecord:
        epoch = await asyncio.to_thread(self._contest.epoch)
        if record.trying < 0 or record.epoch == epoch:
            return record
        return await self._exclude(
            record,
            record.trying,
            "the runtime stopped while it was tried",
            # The attempt that the contender cost is not held against the release.
            attempts=max(0, record.attempts - 1),
        )

    async def _enter(
        self,
        record: UpdateRecord,
        at: int,
        contender: ActiveRelease,
        faults: dict[int, RuntimeFaultError],
    ) -> UpdateRecord:
        epoch = await asyncio.to_thread(self._contest.epoch)
        record = await self._ledger.amend(record, trying=at, epoch=epoch)
        manifest = candidate_of(record).manifest_sha256
        try:
            await asyncio.to_thread(self._contest.enter, contender, at, manifest)
        except (GoldenCheckError, RuntimeRefusedError, DoesNotFitError) as error:
            await asyncio.to_thread(self._contest.leave, record.family, at)
            return await self._exclude(record, at, str(error))
        except RuntimeFaultError as error:
            await asyncio.to_thread(self._contest.leave, record.family, at)
            faults[at] = error
        return await self._ledger.amend(record, trying=-1)

    async def _exclude(
        self, record: UpdateRecord, at: int, reason: str, *, attempts: int | None = None
    ) -> UpdateRecord:
        contender = candidate_of(record).contenders[at]
        logger.warning(
            "variant_excluded",
            extra={
                "family": record.family,
                "version": record.version,
                "variant": _label(contender),
                "reason": reason,
            },
        )
        excluded = {**record.excluded, at: reason[:_REASON_CHARACTERS]}
        return await self._ledger.amend(
            record,
            excluded=excluded,
            trying=-1,
            attempts=record.attempts if attempts is None else attempts,
        )

    async def _chosen(self, record: UpdateRecord, candidate: Candidate) -> ActiveRelease:
        left = {
            at: contender
            for at, contender in enumerate(candidate.contenders)
            if at not in record.excluded
        }
        out = "; ".join(
            f"not {_label(candidate.contenders[at])}: {reason}"
            for at, reason in sorted(record.excluded.items())
        )
        if not left:
            raise NoneFitsError(f"no variant of {record.family} {record.version} works here: {out}")
        if len(left) == 1:
            (only,) = left.values()
            return _with_choice(only, f"{_label(only)} is all that works here", out)
        seconds = await asyncio.to_thread(
            self._contest.time, list(left.items()), candidate.manifest_sha256
        )
        best = winner(seconds)
        others = ", ".join(
            f"{_label(left[at])} {_ms(took)}" for at, took in seconds.items() if at != best
        )
        measured = f"{_label(left[best])} {_ms(seconds[best])} a run, {others}: measured here"
        return _with_choice(left[best], measured, out)

    async def _settle(
        self, record: UpdateRecord, candidate: Candidate, chosen: ActiveRelease
    ) -> UpdateRecord:
        await asyncio.to_thread(self._contest.clear, record.family)
        logger.info(
            "variant_chosen",
            extra={
                "family": record.family,
                "version": record.version,
                "variant": chosen.variant,
                "accelerator": chosen.accelerator,
                "reason": chosen.choice,
            },
        )
        remembered = Choice(
            sha256=chosen.sha256,
            backend=chosen.backend,
            accelerator=chosen.accelerator,
            reason=chosen.choice,
        )
        return await self._ledger.amend(
            record,
            # A contender that only lacked memory, or died, deserves another contest some day.
            also=partial(choices.remember, key=candidate.choice_key, choice=remembered)
            if not record.excluded
            else None,
            candidate=msgspec.structs.replace(
                candidate,
                release=chosen,
                memory_bytes=chosen.memory_bytes,
                contenders=[],
                choice_key="",
            ),
            excluded={},
        )


def _with_choice(release: ActiveRelease, reason: str, out: str) -> ActiveRelease:
    text = "; ".join(part for part in (reason, out, release.choice) if part)
    return msgspec.structs.replace(release, choice=text[:MAX_TEXT])


def _label(release: ActiveRelease) -> str:
    return f"{release.variant} on {release.accelerator}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds >= _MILLISECOND else f"{seconds * 1e6:.0f} us"

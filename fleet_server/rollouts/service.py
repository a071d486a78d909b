"""Rollouts as servers run them: look, decide, write; and what operators ask for.

Any number of servers may do this at once: `advance` writes only if nobody wrote since it looked.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import select

from fleet_server import keyset
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.errors import ConflictError, NotFoundError, UnavailableError
from fleet_server.keyset import Order
from fleet_server.rollouts import (
    engine,
    history,
    interventions,
    newer,
    observations,
    rivals,
    snapshot,
)
from fleet_server.rollouts.comparison import Samples
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.snapshot import Snapshot
from fleet_server.rollouts.state import OVER, Decision, Status, Wait
from fleet_server.rollouts.tables import Rollout, RolloutDecision, RolloutMember

logger = logging.getLogger(__name__)

_TRIES = 20
"""Times that an operator's word is tried against servers that write at the same moment."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A rollout with what the engine says of it now.

    Attributes:
        explanation: what it does or waits for, as a sentence.
    """

    seen: Snapshot
    explanation: str


class Rollouts:
    """The rollouts of one database."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._revisited: dict[int, int] = {}

    async def attended(self, *, over: bool = True) -> list[int]:
        """Return the ids of rollouts with which something may be to do.

        Args:
            over: with those that are over and only wait for devices that may never answer.

        Raises:
            UnavailableError: the database failed.
        """
        query = select(Rollout.id).where(Rollout.attention).order_by(Rollout.id)
        if not over:
            query = query.where(Rollout.status.not_in([status.value for status in OVER]))
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def advance(self, rollout_id: int) -> bool:
        """Take one step of a rollout; say whether there may be another one at once.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        seen = await self._seen(rollout_id)
        if seen.outcomes:
            async with self._database.writing() as session:
                await history.note(session, seen, seen.outcomes)
            return True
        decided = engine.decide(seen.view, await self._samples(seen))
        if isinstance(decided, Wait):
            return False
        async with self._database.writing() as session:
            written = await history.write(session, seen, decided)
        if written:
            _log(rollout_id, decided)
        return True

    async def stop_without_release(self, rollout_id: int, why: str) -> None:
        """Stop a rollout whose release cannot be assigned any more, unless it rests already.

        Raises:
            NotFoundError: there is no such rollout.
            UnavailableError: the database failed.
        """
        seen = await self._seen(rollout_id)
        decided = engine.without_release(seen.view, why)
        if decided is not None:
            await self._written(seen, decided)  # if another server wrote meanwhile: the next look

    async def intervene(
        self, rollout_id: int, wanted: Intervention, *, who: str, why: str
    ) -> Standing:
        """Do what an operator asks for.

        Raises:
            NotFoundError: there is none with that id.
            ConflictError: its status does not allow it, or a newer rollout replaced it.
            UnavailableError: the database failed.
        """
        for _ in range(_TRIES):
            seen = await self._seen(rollout_id)
            _check_current(seen.row)
            decided = interventions.intervene(seen.view, wanted, who=who, why=why)
            if await self._written(seen, decided):
                return await self.standing(rollout_id)
        raise _busy(rollout_id)

    async def retry(self, rollout_id: int, device_id: str, *, who: str) -> Standing:
        """Let one device try the release again.

        Raises:
            NotFoundError: there is no such rollout, or the device is not in it.
            ConflictError: the device did not fail, the rollout is over, or a newer one has it.
            UnavailableError: the database failed.
        """
        for _ in range(_TRIES):
            seen = await self._seen(rollout_id)
            _check_current(seen.row)
            async with self._database.reading() as session:
                member = await session.get(RolloutMember, (rollout_id, device_id))
                changed_by = await newer.that_changed(session, seen.row, device_id)
            if member is None:
                raise NotFoundError(f"the device {device_id[:80]!r} is not in rollout {rollout_id}")
            if changed_by is not None:
                raise ConflictError(
                    f"rollout {changed_by} has changed {device_id} since; try it again there"
                )
            state = MemberState(member.state)
            decided = interventions.retry(seen.view, device_id, state, who=who)
            if await self._written(seen, decided):
                return await self.standing(rollout_id)
        raise _busy(rollout_id)

    async def check_assignable(self, family: str, devices: Sequence[str] | None) -> None:
        """Accept an assignment by hand to some devices (None: to all).

        Raises:
            ConflictError: a rollout of the family is under way on one of them.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            await rivals.check_assignable(session, family, devices)

    async def page(
        self, *, after: int | None, limit: int, family: str | None, status: Status | None
    ) -> Sequence[Rollout]:
        """Return up to ``limit`` rollouts, the newest first, from before an id on.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(
            select(Rollout), Rollout.id, after=after, limit=limit, order=Order.DESCENDING
        )
        if family is not None:
            query = query.where(Rollout.family == family)
        if status is not None:
            query = query.where(Rollout.status == status.value)
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def standing(self, rollout_id: int) -> Standing:
        """Return how a rollout stands, and what the engine would say now.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        seen = await self._seen(rollout_id)
        return Standing(seen, engine.decide(seen.view).reason)

    async def decisions(
        self, rollout_id: int, *, after: int | None, limit: int
    ) -> Sequence[RolloutDecision]:
        """Return rows of a rollout's history, the newest first, from before a number on.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        query = keyset.page(
            select(RolloutDecision).where(RolloutDecision.rollout_id == rollout_id),
            RolloutDecision.number,
            after=after,
            limit=limit,
            order=Order.DESCENDING,
        )
        async with self._database.reading() as session:
            await snapshot.rollout(session, rollout_id)
            return list(await session.scalars(query))

    async def members(
        self, rollout_id: int, *, after: str | None, limit: int, state: MemberState | None
    ) -> Sequence[RolloutMember]:
        """Return members of a rollout in the order of their ids.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        query = keyset.page(
            select(RolloutMember).where(RolloutMember.rollout_id == rollout_id),
            RolloutMember.device_id,
            after=after,
            limit=limit,
        )
        if state is not None:
            query = query.where(RolloutMember.state == state.value)
        async with self._database.reading() as session:
            await snapshot.rollout(session, rollout_id)
            return list(await session.scalars(query))

    async def _seen(self, rollout_id: int) -> Snapshot:
        async with self._database.reading() as session:
            seen = await snapshot.read(
                session,
                rollout_id,
                now_ms=unix_ms(self._clock()),
                after_rank=self._revisited.get(rollout_id, -1),
            )
        self._revisited[rollout_id] = seen.seen_rank
        return seen

    async def _samples(self, seen: Snapshot) -> Samples | None:
        policy = seen.plan.comparison
        if policy is None or not engine.wants_look(seen.view):
            return None
        async with self._database.reading() as session:
            return await observations.samples(session, seen, policy)

    async def _written(self, seen: Snapshot, decided: Decision) -> bool:
        async with self._database.writing() as session:
            written = await history.write(session, seen, decided)
        if written:
            _log(seen.row.id, decided)
        return written


def _check_current(row: Rollout) -> None:
    if row.superseded_by is not None:
        raise ConflictError(
            f"rollout {row.id} was replaced by rollout {row.superseded_by}; act on that one"
        )


def _busy(rollout_id: int) -> UnavailableError:
    return UnavailableError(
        f"rollout {rollout_id} changes faster than this can be written; try again", retry_after_s=1
    )


def _log(rollout_id: int, decided: Decision) -> None:
    logger.info(
        "rollout_decision",
        extra={
            "rollout": rollout_id,
            "decision": decided.kind.value,
            "reason": decided.reason,
            "devices": len(decided.devices),
            "inputs": msgspec.json.encode(decided.inputs).decode()[:2000],
        },
    )

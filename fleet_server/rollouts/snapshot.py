"""Reads one rollout as the engine needs it.

Counts stand in the row of the rollout (`tally`); single devices are read only if they are in flight
(the budget bounds them), if their turn is next, or, a page at a time, if a later word of theirs
could change how they ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, UnaryExpression, and_, func, select, true, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from fleet_protocol import messages
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Reported
from fleet_server.clock import Span
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError
from fleet_server.rollouts import newer
from fleet_server.rollouts import plan as plans
from fleet_server.rollouts.members import (
    IN_FLIGHT,
    TO_RECALL,
    TO_RETURN,
    WATCHED,
    Member,
    MemberState,
    Outcome,
    settled,
)
from fleet_server.rollouts.plan import Plan
from fleet_server.rollouts.state import MAX_DEVICES, Head, Status, View
from fleet_server.rollouts.tables import Rollout, RolloutMember
from fleet_server.rollouts.tally import Tally
from fleet_server.telemetry import hearing

_S = MemberState
_PAGE = 500
MAX_IN_FLIGHT = 2000
"""The largest disruption budget: so many devices are read at each look."""

_REVISITED = WATCHED - IN_FLIGHT
Order = InstrumentedAttribute[int] | UnaryExpression[int]
_TURN_STATUSES = {Status.RUNNING, Status.COMPLETED}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A rollout at one revision.

    Attributes:
        outcomes: what devices turned out to be since; it is written before anything is decided.
        seen_rank: how far the page of devices that may change their word went.
    """

    row: Rollout
    plan: Plan
    view: View
    outcomes: tuple[Outcome, ...]
    seen_rank: int


def head_of(row: Rollout) -> Head:
    """Return the engine's part of a stored rollout."""
    return Head(
        status=Status(row.status),
        stage=row.stage,
        looks=row.looks,
        compared_devices=row.compared_devices,
        compared_stage=row.compared_stage,
    )


async def rollout(session: AsyncSession, rollout_id: int) -> Rollout:
    """Return a stored rollout.

    Raises:
        NotFoundError: there is none with that id.
    """
    row = await session.get(Rollout, rollout_id)
    if row is None:
        raise NotFoundError(f"there is no rollout {rollout_id}")
    return row


async def read(
    session: AsyncSession, rollout_id: int, *, now_ms: int, after_rank: int = -1
) -> Snapshot:
    """Read a rollout and what its devices say now.

    Raises:
        NotFoundError: there is none with that id.
    """
    row = await rollout(session, rollout_id)
    plan, head = plans.decode(row.plan), head_of(row)
    stages = Tally.decode(row.tally).stages(len(plan.stages))
    bare = View(plan=plan, head=head, stages=stages, now_ms=now_ms)
    deaf = await hearing.deaf(session, since_ms=row.created_ms, now_ms=now_ms)
    reading = _Reading(session, row, plan, now_ms, deaf)
    untold = await reading.in_flight()
    seen_rank = await reading.revisit(after_rank)
    turning = _TURN_STATUSES if bare.room else set()
    rolling = {Status.ROLLING_BACK}
    view = View(
        plan=plan,
        head=head,
        stages=stages,
        now_ms=now_ms,
        settled_ms=await _settled_ms(session, row),
        deaf=deaf,
        untold=untold,
        turn=await reading.some(turning, (_S.PREPARED, _S.WAITING)),
        ahead=await reading.some({Status.RUNNING} if plan.download_ahead else set(), (_S.WAITING,)),
        to_return=(
            *await reading.some(rolling, TO_RETURN[:1]),
            *await reading.some(rolling, TO_RETURN[1:]),
        ),
        to_recall=await reading.some(
            rolling | {Status.ABORTED},
            TO_RECALL if head.status is Status.ROLLING_BACK else (_S.PREPARED,),
        ),
    )
    return Snapshot(row, plan, view, tuple(reading.outcomes.values()), seen_rank)


async def _settled_ms(session: AsyncSession, row: Rollout) -> int | None:
    query = select(func.max(RolloutMember.settled_ms)).where(
        RolloutMember.rollout_id == row.id, RolloutMember.stage == row.stage
    )
    return await session.scalar(query)


class _Reading:
    """Reads members with their devices, and notes what became of them."""

    def __init__(
        self,
        session: AsyncSession,
        row: Rollout,
        plan: Plan,
        now_ms: int,
        deaf: Sequence[Span],
    ) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._session = session
        self._row = row
        self._plan = plan
        self._now_ms = now_ms
        self._deaf = deaf

    async def in_flight(self) -> int:
        """Look at devices that change now; return how many of them were not told yet."""
        moving = self._first(IN_FLIGHT, true(), (), MAX_IN_FLIGHT)
        rows = await self._look(self._members(moving).limit(MAX_IN_FLIGHT))
        return sum(row.assignment_version is None for row in rows)

    async def revisit(self, after_rank: int) -> int:
        """Look at a page of devices that may change their word; return how far it went."""
        by_rank = (RolloutMember.rank,)
        next_ones = self._first(_REVISITED, RolloutMember.rank > after_rank, by_rank, _PAGE)
        rows = await self._look(self._members(next_ones).order_by(*by_rank).limit(_PAGE))
        return rows[-1].rank if len(rows) == _PAGE else -1

    async def some(self, statuses: set[Status], states: Sequence[MemberState]) -> tuple[str, ...]:
        """Return members in some states, if the rollout is in one of some statuses."""
        if Status(self._row.status) not in statuses:
            return ()
        retried = RolloutMember.retries > 0
        turn = (RolloutMember.stage, RolloutMember.rank)
        opened = and_(
            RolloutMember.stage <= self._row.stage,
            ~newer.has_changed(self._row, RolloutMember.device_id),
        )
        most_tried = (RolloutMember.retries.desc(), *turn)
        next_ones = [
            *self._first(states, and_(opened, retried), most_tried, MAX_DEVICES),
            *self._first(states, and_(opened, RolloutMember.retries == 0), turn, MAX_DEVICES),
        ]
        query = self._members(next_ones).order_by(*most_tried)
        rows = await self._look(query.limit(MAX_DEVICES))
        return tuple(row.device_id for row in rows if row.device_id not in self.outcomes)

    def _first(
        self,
        states: Iterable[MemberState],
        condition: ColumnElement[bool],
        order: Sequence[Order],
        limit: int,
    ) -> list[Select[str]]:
        """Return queries for the first members, of each state by itself.

        An index has those of one state in order; several PostgreSQL would read whole, and sort.
        """
        query = select(RolloutMember.device_id).where(
            RolloutMember.rollout_id == self._row.id, condition
        )
        return [
            query.where(RolloutMember.state == state.value).order_by(*order).limit(limit)
            for state in states
        ]

    def _members(
        self, some: Sequence[Select[str]]
    ) -> Select[RolloutMember, str | None, int | None]:
        ids = union_all(*(select(each.subquery()) for each in some)).subquery()
        return (
            select(RolloutMember, Device.reported, Device.decommissioned_ms)
            .join(Device, Device.id == RolloutMember.device_id)
            .join(ids, ids.c.device_id == RolloutMember.device_id)
            .where(RolloutMember.rollout_id == self._row.id)
        )

    async def _look(
        self, query: Select[RolloutMember, str | None, int | None]
    ) -> list[RolloutMember]:
        rows = (await self._session.execute(query)).all()
        for row, reported, decommissioned_ms in rows:
            outcome = settled(
                member_of(row),
                self._plan,
                reported=_reported(reported),
                decommissioned=decommissioned_ms is not None,
                now_ms=self._now_ms,
                deaf=self._deaf,
            )
            if outcome is not None:
                self.outcomes[row.device_id] = outcome
        return [row for row, _, _ in rows]


def member_of(row: RolloutMember) -> Member:
    """Return the engine's part of a stored member."""
    return Member(
        device_id=row.device_id,
        stage=row.stage,
        state=MemberState(row.state),
        previous_version=row.previous_version or None,
        ordered_ms=row.ordered_ms,
        assignment_version=row.assignment_version,
    )


def _reported(stored: str | None) -> Reported | None:
    try:
        return messages.decode(stored.encode(), Reported) if stored else None
    except ProtocolError:
        return None  # stored by a version that spoke another schema

"""Carries out decided orders: signs assignments and forgets the order, in one transaction.

An order is written with its decision, so no server that dies loses or repeats one: whoever comes
next finds it. Two servers may sign the same order; the one that stores second finds the order gone,
and its transaction does not happen.

A release that its publisher withdrew cannot be assigned any more. Orders that ask for it are passed
over: they hold up neither the way back of their own rollout nor newer rollouts of the device.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.delivery import ANY_TIME, Terms
from fleet_server.assignments.plans import Change, Changed
from fleet_server.assignments.service import Assignments
from fleet_server.assignments.signing import MAX_BATCH
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.errors import FleetError, NotFoundError, RefusedError, UnavailableError
from fleet_server.rollouts import newer
from fleet_server.rollouts import plan as plans
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import Plan
from fleet_server.rollouts.tables import Rollout, RolloutMember, RolloutOrder

_Pending = tuple[RolloutOrder, Plan, str | None]
"""An order, the plan that it follows, and what the device was assigned before."""

_FORWARD = {MemberState.PREPARED.value, MemberState.ACTIVATING.value}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Target:
    """What orders of one rollout ask for.

    Attributes:
        forward: whether it is the rollout's release, or what devices ran before.
    """

    rollout_id: int
    forward: bool
    version: str

    def covers(self) -> ColumnElement[bool]:
        """Return the condition that an order of a member asks for it."""
        goes_forward = RolloutOrder.state.in_(_FORWARD)
        return and_(
            RolloutOrder.rollout_id == self.rollout_id,
            goes_forward
            if self.forward
            else and_(
                not_(goes_forward),
                func.coalesce(RolloutMember.previous_version, "") == self.version,
            ),
        )


class _GoneError(FleetError):
    """Some orders ask for a release that nobody can be assigned any more."""

    def __init__(self, reason: str, *, targets: set[_Target]) -> None:
        super().__init__(reason)
        self.targets = targets


class Orders:
    """The orders of one database.

    Attributes:
        withdrawn: rollouts whose own release cannot be assigned any more, each with the reason, as
            the last look found it.
    """

    def __init__(self, *, database: Database, assignments: Assignments, clock: Clock) -> None:
        self._database = database
        self._assignments = assignments
        self._clock = clock
        self._told: set[_Target] = set()
        self.withdrawn: Mapping[int, str] = {}

    async def carry_out(self) -> int:
        """Carry out the oldest order of each of some devices; return how many orders that were.

        Raises:
            RefusedError: the signer refuses.
            UnavailableError: signer or database do not answer, or another server was faster.
        """
        pending, changes = await self._next()
        if not pending:
            return 0
        by_device = {order.device_id: order for order, _, _ in pending}

        async def also(session: AsyncSession, changed: Mapping[str, Changed]) -> None:
            await _forget(session, list(by_device.values()))
            for device_id, order in by_device.items():
                await _signed(session, order, changed[device_id], at_ms=unix_ms(self._clock()))

        await self._assignments.carry_out(changes, also)
        return len(pending)

    async def _next(self) -> tuple[list[_Pending], list[Change]]:
        """Return orders and what they change, less those for what nobody can be assigned."""
        gone: dict[_Target, str] = {}
        while True:
            pending = await self._pending(gone)
            try:
                changes = await self._changes(pending)
            except _GoneError as error:
                gone |= dict.fromkeys(error.targets, str(error))
            else:
                self._tell(gone)
                return pending, changes

    def _tell(self, gone: Mapping[_Target, str]) -> None:
        for target in gone.keys() - self._told:
            extra = {"rollout": target.rollout_id, "reason": gone[target]}
            logger.warning("rollout_order_passed_over", extra=extra)
        self._told = set(gone)
        self.withdrawn = {
            target.rollout_id: reason for target, reason in gone.items() if target.forward
        }

    async def _pending(self, gone: Mapping[_Target, str]) -> list[_Pending]:
        of_member = (RolloutMember.rollout_id == RolloutOrder.rollout_id) & (
            RolloutMember.device_id == RolloutOrder.device_id
        )
        oldest = select(func.min(RolloutOrder.id)).group_by(RolloutOrder.device_id)
        if gone:
            passed_over = or_(*(target.covers() for target in gone))
            oldest = oldest.join(RolloutMember, of_member).where(not_(passed_over))
        query = (
            select(RolloutOrder, Rollout.plan, RolloutMember.previous_version)
            .join(Rollout, Rollout.id == RolloutOrder.rollout_id)
            .join(RolloutMember, of_member)
            .where(RolloutOrder.id.in_(oldest.correlate(None)))
            .order_by(RolloutOrder.id)
            .limit(MAX_BATCH)
        )
        async with self._database.reading() as session:
            return [
                (order, plans.decode(plan), previous)
                for order, plan, previous in await session.execute(query)
            ]

    async def _changes(self, pending: Sequence[_Pending]) -> list[Change]:
        wanted = [(plan.family, *_wanted(order, plan, old)) for order, plan, old in pending]
        found = {}
        for key in set(wanted):
            if not key[1]:
                continue
            try:
                found[key] = await self._assignments.entry(*key)
            except (NotFoundError, RefusedError) as error:
                targets = {
                    _Target(order.rollout_id, order.state in _FORWARD, key[1])
                    for (order, _, _), of in zip(pending, wanted, strict=True)
                    if of == key
                }
                raise _GoneError(str(error), targets=targets) from error
        return [
            Change(order.device_id, plan.family, found.get(key))
            for (order, plan, _), key in zip(pending, wanted, strict=True)
        ]


def _wanted(order: RolloutOrder, plan: Plan, previous: str | None) -> tuple[str, Terms]:
    """Return the version that an order asks for ("" for none of the family) and its terms."""
    if order.state in _FORWARD:
        held = order.state == MemberState.PREPARED.value
        return plan.version, plans.terms(plan, held=held)
    return previous or "", ANY_TIME


async def _forget(session: AsyncSession, orders: Sequence[RolloutOrder]) -> None:
    gone = await session.execute(
        delete(RolloutOrder)
        .where(RolloutOrder.id.in_([order.id for order in orders]))
        .returning(RolloutOrder.id)
    )
    if len(gone.all()) != len(orders):
        raise UnavailableError(
            "another server carried out the same orders at the same time", retry_after_s=1
        )


async def _signed(
    session: AsyncSession, order: RolloutOrder, changed: Changed, *, at_ms: int
) -> None:
    """Note that a device is told now; from here on its deadline runs."""
    of_member = (
        RolloutMember.rollout_id == order.rollout_id,
        RolloutMember.device_id == order.device_id,
    )
    await session.execute(
        update(RolloutMember)
        .where(*of_member, RolloutMember.order_number == order.number)
        .values(assignment_version=changed.version, ordered_ms=at_ms)
    )
    if order.state in _FORWARD:
        assigned = changed.before.version if changed.before is not None else ""
        ran = await newer.ran_before(session, order.rollout_id, order.device_id, assigned)
        before = assigned if ran is None else ran
        await session.execute(
            update(RolloutMember)
            .where(*of_member, RolloutMember.previous_version.is_(None))
            .values(previous_version=before)
        )

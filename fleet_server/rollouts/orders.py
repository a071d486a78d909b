"""Carries out decided orders: signs assignments and forgets the order, in one transaction.

An order is written with its decision, so no server that dies loses or repeats one: whoever comes
next finds it. Two servers may sign the same order; the one that stores second finds the order gone,
and its transaction does not happen.
"""

import logging
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.delivery import ANY_TIME, Terms
from fleet_server.assignments.plans import Change, Changed
from fleet_server.assignments.service import Assignments
from fleet_server.assignments.signing import MAX_BATCH
from fleet_server.database import Database
from fleet_server.errors import FleetError, NotFoundError, RefusedError, UnavailableError
from fleet_server.rollouts import plan as plans
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import Plan
from fleet_server.rollouts.tables import Rollout, RolloutMember, RolloutOrder

_Pending = tuple[RolloutOrder, Plan, str | None]
"""An order, the plan that it follows, and what the device was assigned before."""

_FORWARD = {MemberState.PREPARED.value, MemberState.ACTIVATING.value}

logger = logging.getLogger(__name__)


class _GoneError(FleetError):
    """Some rollouts ask for a release that nobody can be assigned any more."""

    def __init__(self, reason: str, *, rollouts: Sequence[int]) -> None:
        super().__init__(reason)
        self.rollouts = rollouts


class Orders:
    """The orders of one database."""

    def __init__(self, *, database: Database, assignments: Assignments) -> None:
        self._database = database
        self._assignments = assignments
        self._told: set[int] = set()

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
                await _signed(session, order, changed[device_id])

        await self._assignments.carry_out(changes, also)
        return len(pending)

    async def _next(self) -> tuple[list[_Pending], list[Change]]:
        """Return orders and what they change, less those of rollouts whose release is gone.

        What was withdrawn by its publisher cannot be assigned any more; such a rollout waits for
        its operator, and must not hold the others up.
        """
        stuck: set[int] = set()
        while True:
            pending = await self._pending(stuck)
            try:
                changes = await self._changes(pending)
            except _GoneError as error:
                if not self._told.issuperset(error.rollouts):
                    logger.warning(
                        "rollout_stuck", extra={"rollouts": error.rollouts, "reason": str(error)}
                    )
                stuck.update(error.rollouts)
            else:
                self._told = stuck
                return pending, changes

    async def _pending(self, stuck: Collection[int]) -> list[_Pending]:
        oldest = select(func.min(RolloutOrder.id)).group_by(RolloutOrder.device_id)
        query = (
            select(RolloutOrder, Rollout.plan, RolloutMember.previous_version)
            .join(Rollout, Rollout.id == RolloutOrder.rollout_id)
            .join(
                RolloutMember,
                (RolloutMember.rollout_id == RolloutOrder.rollout_id)
                & (RolloutMember.device_id == RolloutOrder.device_id),
            )
            .where(RolloutOrder.id.in_(oldest), RolloutOrder.rollout_id.not_in(stuck))
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
                rollouts = {
                    order.rollout_id
                    for (order, _, _), of in zip(pending, wanted, strict=True)
                    if of == key
                }
                raise _GoneError(str(error), rollouts=sorted(rollouts)) from error
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


async def _signed(session: AsyncSession, order: RolloutOrder, changed: Changed) -> None:
    of_member = (
        RolloutMember.rollout_id == order.rollout_id,
        RolloutMember.device_id == order.device_id,
    )
    await session.execute(
        update(RolloutMember)
        .where(*of_member, RolloutMember.order_number == order.number)
        .values(assignment_version=changed.version)
    )
    if order.state in _FORWARD:
        before = changed.before.version if changed.before is not None else ""
        await session.execute(
            update(RolloutMember)
            .where(*of_member, RolloutMember.previous_version.is_(None))
            .values(previous_version=before)
        )

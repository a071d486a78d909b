"""What newer rollouts of the same family did to the devices of an older one.

Whatever the older one still has to do with such a device, a turn that comes late or a roll-back, is
not done: it would take the device back behind what was decided since. Once the newer one has
returned the device, it belongs to the older one again. Where the older one takes its release back
meanwhile, the newer one returns devices to what they ran before both.
"""

from sqlalchemy import ColumnElement, Select, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fleet_server import tenancy
from fleet_server.rollouts.members import TO_RECALL, MemberState
from fleet_server.rollouts.tables import Rollout, RolloutMember

_LEFT_ALONE = (
    MemberState.WAITING,
    MemberState.RETURNED,
    MemberState.RECALLED,
    MemberState.GONE,
)
"""States in which a newer rollout leaves a device to an older one."""

_NEWER, _CHANGED = aliased(Rollout), aliased(RolloutMember)  # made once: that takes a millisecond


def has_changed(row: Rollout, device_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Return the condition that a rollout newer than ``row`` has changed a device."""
    return exists(_changes(row, device_id))


async def that_changed(session: AsyncSession, row: Rollout, device_id: str) -> int | None:
    """Return the newest rollout after ``row`` that has changed a device; None if there is none."""
    return await session.scalar(
        select(RolloutMember.rollout_id)
        .where(
            RolloutMember.device_id == device_id,
            RolloutMember.rollout_id.in_(_changes(row, RolloutMember.device_id)),
        )
        .order_by(RolloutMember.rollout_id.desc())
        .limit(1)
    )


async def hand_down(session: AsyncSession, row: Rollout) -> dict[int, int]:
    """Let newer rollouts not return devices to the release that ``row`` takes back.

    They return them to what ``row`` would have returned them to, if it had not left them alone.

    Returns:
        For each of them of how many devices that changes the way back.
    """
    own, later = aliased(RolloutMember), aliased(Rollout)
    before = select(own.previous_version).where(
        own.rollout_id == row.id,
        own.device_id == RolloutMember.device_id,
        own.previous_version.is_not(None),
    )
    those = select(later.id).where(later.family == row.family, later.id > row.id)
    led_there = (
        RolloutMember.rollout_id.in_(those),
        RolloutMember.previous_version == row.version,
        exists(before),
    )
    counted = select(RolloutMember.rollout_id, func.count()).where(*led_there)
    with tenancy.everything():  # a family has one tenant, and the statement names the table twice
        found = await session.execute(counted.group_by(RolloutMember.rollout_id))
        changed = {rollout_id: devices for rollout_id, devices in found}  # noqa: C416 (rows are typed)
        await session.execute(
            update(RolloutMember)
            .where(*led_there)
            .values(previous_version=before.scalar_subquery())
            .execution_options(synchronize_session=False)
        )
    return changed


async def ran_before(
    session: AsyncSession, rollout_id: int, device_id: str, assigned: str
) -> str | None:
    """Return what a device ran that was assigned a release which it does not run.

    An older rollout may have let it fetch that release ahead, or seen it refuse it, and been
    aborted since: going back there would bring it what nobody wants any more.

    Args:
        session: of the caller's transaction.
        rollout_id: of the rollout that changes the device now.
        device_id: of the device.
        assigned: the release that it was assigned.

    Returns:
        None if no older rollout knows better than its assignment.
    """
    own, older = aliased(Rollout), aliased(Rollout)
    query = (
        select(RolloutMember.previous_version)
        .join(older, older.id == RolloutMember.rollout_id)
        .join(own, own.family == older.family)
        .where(
            own.id == rollout_id,
            older.id < rollout_id,
            older.version == assigned,
            RolloutMember.device_id == device_id,
            RolloutMember.state.in_([state.value for state in TO_RECALL]),
        )
        .order_by(older.id.desc())
    )
    return await session.scalar(query.limit(1))


def _changes(row: Rollout, device_id: InstrumentedAttribute[str]) -> Select[int]:
    return (
        select(_NEWER.id)
        .join(_CHANGED, _CHANGED.rollout_id == _NEWER.id)
        .where(
            _CHANGED.device_id == device_id,
            _NEWER.family == row.family,
            _NEWER.id > row.id,
            _CHANGED.state.not_in([state.value for state in _LEFT_ALONE]),
        )
    )

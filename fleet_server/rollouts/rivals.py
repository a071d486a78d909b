"""Other rollouts of the same family that are under way: a device takes part in one at a time.

Two that change a device in turns would each wait for a version that the other one replaces, and
hold that against a release that is good. So whoever takes devices into a rollout asks here, in the
transaction that writes them and after `take_turn` with `turn`.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fleet_server import tenancy
from fleet_server.errors import ConflictError
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.state import Status
from fleet_server.rollouts.tables import Rollout, RolloutMember

_ENDABLE = (Status.RUNNING, Status.PAUSED, Status.STOPPED)
_UNDER_WAY = (*_ENDABLE, Status.ROLLING_BACK)
_LEFT_BEHIND = (MemberState.FAILED, MemberState.SILENT, MemberState.GONE)
"""Devices for which a rollout does no more by itself."""

_OTHER, _TAKING_PART = aliased(Rollout), aliased(RolloutMember)  # made once: that takes long


def turn(family: str) -> str:
    """Return the name of the turn that those take who put devices into rollouts of a family."""
    return f"rollouts of {family}"


def have(row: Rollout, device_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Return the condition that a rollout beside ``row`` is under way on a device."""
    return exists(
        select(_OTHER.id)
        .join(_TAKING_PART, _TAKING_PART.rollout_id == _OTHER.id)
        .where(_TAKING_PART.device_id == device_id, _is_under_way_beside(row, _OTHER))
    )


async def check(session: AsyncSession, row: Rollout) -> None:
    """Accept a rollout on whose members no other one is under way.

    Raises:
        ConflictError: one is.
    """
    own, member = aliased(RolloutMember), aliased(RolloutMember)
    query = (
        select(Rollout.id, member.device_id)
        .join(member, member.rollout_id == Rollout.id)
        .join(own, and_(own.device_id == member.device_id, own.rollout_id == row.id))
        .where(_is_under_way_beside(row, Rollout))
        .limit(1)
    )
    with tenancy.everything():  # a family has one tenant, and the query names the table twice
        found = (await session.execute(query)).first()
    if found is not None:
        raise ConflictError(
            f"rollout {found[0]} of {row.family} is under way on {found[1]} too; let it end, "
            "abort it, or select other devices"
        )


async def check_assignable(
    session: AsyncSession, family: str, devices: Sequence[str] | None
) -> None:
    """Accept an assignment by hand that no rollout would undo or hold against its release.

    One that rolls back is no hindrance: it cannot be ended, and what it waits for may never come.

    Args:
        session: to ask.
        family: whose release is assigned.
        devices: to which; None for all.

    Raises:
        ConflictError: a rollout of the family is under way on one of them.
    """
    query = (
        select(Rollout.id, RolloutMember.device_id)
        .join(RolloutMember, RolloutMember.rollout_id == Rollout.id)
        .where(
            Rollout.family == family,
            Rollout.status.in_([status.value for status in _ENDABLE]),
            RolloutMember.state.not_in([state.value for state in _LEFT_BEHIND]),
        )
        .limit(1)
    )
    if devices is not None:
        query = query.where(RolloutMember.device_id.in_(devices))
    found = (await session.execute(query)).first()
    if found is not None:
        raise ConflictError(
            f"rollout {found[0]} of {family} is under way on {found[1]}, and takes no notice of "
            "what is assigned beside it; let it end, or abort it, and assign then"
        )


def _is_under_way_beside(row: Rollout, other: type[Rollout]) -> ColumnElement[bool]:
    return and_(
        other.family == row.family,
        other.id != row.id,
        other.status.in_([status.value for status in _UNDER_WAY]),
    )

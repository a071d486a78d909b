"""Writes what was decided or observed in one transaction: state, members, orders, history, notices.

Whoever writes names the revision that it read. If another server wrote since, nothing happens and
it looks again: so there is one history, whoever decides.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import CursorResult, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.rollouts import interventions, newer, telling
from fleet_server.rollouts.members import IN_FLIGHT, MemberState, Outcome
from fleet_server.rollouts.snapshot import Snapshot, head_of
from fleet_server.rollouts.state import OVER, Decision, Head, Kind, Status
from fleet_server.rollouts.tables import (
    Rollout,
    RolloutDecision,
    RolloutMember,
    RolloutOrder,
)
from fleet_server.rollouts.tally import Tally, places

_S = MemberState
_ORDERED = frozenset({_S.PREPARED, _S.ACTIVATING, _S.RETURNING, _S.RECALLED})
"""States that a device gets by an assignment."""
_AWAITED = frozenset({*IN_FLIGHT, _S.PREPARED, _S.RECALLED})
"""States from which a device that answers, however late, gets another one."""
_FORWARD = frozenset({_S.PREPARED, _S.ACTIVATING})
_TELLS_NOBODY = frozenset({Status.STOPPED, Status.ROLLING_BACK, Status.ABORTED})
"""Whoever was not told of the release until one of these is not told of it any more."""
_TAKES_BACK = frozenset({Status.ROLLING_BACK, Status.ROLLED_BACK})
"""Both: what a newer rollout had decided at the first may have been signed until the second."""
_NAMED = 5
_AT_ONCE = 500


async def note(session: AsyncSession, seen: Snapshot, outcomes: Sequence[Outcome]) -> bool:
    """Write what became of devices; say whether the rollout was still as it was seen."""
    now_ms = seen.view.now_ms
    decision = Decision(
        kind=Kind.OBSERVED,
        reason=_observed(outcomes),
        inputs={
            "now_ms": now_ms,
            "outcomes": [
                {"device": each.device_id, "state": each.state.value, "detail": each.detail[:500]}
                for each in outcomes
            ],
        },
        head=seen.view.head,
        devices=tuple(each.device_id for each in outcomes),
    )
    if not await _moved(session, seen, decision):
        return False
    tally = Tally.decode(seen.row.tally)
    alike: dict[tuple[MemberState, str], list[str]] = defaultdict(list)
    for each in outcomes:
        alike[each.state, each.detail].append(each.device_id)
    for (state, detail), devices in alike.items():
        told = {"state": state.value, "detail": detail, "settled_ms": now_ms}
        await _set(session, seen, tally, devices, **told)
    await _keep(session, seen, tally)
    await _let_rest(session, seen, decision.head)
    return True


async def write(session: AsyncSession, seen: Snapshot, decision: Decision) -> bool:
    """Write a decision; say whether the rollout was still as it was seen."""
    if not await _moved(session, seen, decision):
        return False
    tally = Tally.decode(seen.row.tally)
    if decision.kind is Kind.JOINED:
        tally.add({(len(seen.plan.stages) - 1, _S.WAITING, False): len(decision.devices)})
    if interventions.excuses(seen.view.head, decision):
        tally.excuse()
        await session.execute(
            update(RolloutMember)
            .where(
                RolloutMember.rollout_id == seen.row.id,
                RolloutMember.state.in_([_S.FAILED.value, _S.SILENT.value]),
            )
            .values(excused=True)
        )
    await _supersede(session, seen, decision.head)
    if decision.head.status in _TAKES_BACK and decision.head.status is not seen.view.head.status:
        await _tell_newer(session, seen, await newer.hand_down(session, seen.row))
    if decision.head.status in _TELLS_NOBODY:
        await _spare(session, seen, tally)
    if decision.become is not None:
        await _become(session, seen, tally, decision, decision.become)
    await _keep(session, seen, tally)
    await telling.tell(session, seen, decision)
    await _let_rest(session, seen, decision.head)
    return True


async def _tell_newer(session: AsyncSession, seen: Snapshot, changed: Mapping[int, int]) -> None:
    """Note in the history of newer rollouts that another one changed their way back."""
    now_ms = seen.view.now_ms
    for rollout_id, devices in sorted(changed.items()):
        row = await session.get_one(Rollout, rollout_id, with_for_update=True)
        row.revision, row.changed_ms = row.revision + 1, now_ms
        noted = Decision(
            kind=Kind.OBSERVED,
            reason=(
                f"Rollout {seen.row.id} takes {seen.row.version} back: {devices} devices of this "
                "one would now go back to what they ran before it."
            ),
            inputs={"now_ms": now_ms, "rollout": seen.row.id, "devices": devices},
            head=head_of(row),
        )
        await append(session, row, row.revision, noted, at_ms=now_ms)


async def _spare(session: AsyncSession, seen: Snapshot, tally: Tally) -> None:
    """Take back orders that no assignment carries yet: those devices have nothing to go back from.

    Who had fetched the release ahead, or tried it before, is assigned it and has to be recalled.
    """
    taken_back = await session.scalars(
        delete(RolloutOrder)
        .where(
            RolloutOrder.rollout_id == seen.row.id,
            RolloutOrder.state.in_([state.value for state in _FORWARD]),
        )
        .returning(RolloutOrder.device_id)
    )
    never_told = RolloutMember.previous_version.is_(None)
    state = case((never_told, _S.WAITING.value), else_=_S.PREPARED.value)
    devices = taken_back.all()
    for start in range(0, len(devices), _AT_ONCE):
        some = devices[start : start + _AT_ONCE]
        await _set(session, seen, tally, some, state=state, order_number=None, ordered_ms=None)


async def _become(
    session: AsyncSession, seen: Snapshot, tally: Tally, decision: Decision, state: MemberState
) -> None:
    number = seen.row.revision + 1
    changes: dict[str, object] = {
        "state": state.value,
        "order_number": number,
        "ordered_ms": seen.view.now_ms,
        "assignment_version": None,
        "settled_ms": None,
        "excused": False,
        "detail": "",
    }
    if decision.kind is Kind.RETRIED:
        changes["retries"] = RolloutMember.retries + 1
    await _set(session, seen, tally, decision.devices, **changes)
    if state in _ORDERED:
        orders = [
            {
                "rollout_id": seen.row.id,
                "device_id": device_id,
                "number": number,
                "state": state.value,
            }
            for device_id in decision.devices
        ]
        await session.execute(insert(RolloutOrder), orders)


async def _moved(session: AsyncSession, seen: Snapshot, decision: Decision) -> bool:
    number, head = seen.row.revision + 1, decision.head
    moved = await session.execute(
        update(Rollout)
        .where(Rollout.id == seen.row.id, Rollout.revision == seen.row.revision)
        .values(
            revision=number,
            status=head.status.value,
            stage=head.stage,
            looks=head.looks,
            compared_devices=head.compared_devices,
            compared_stage=head.compared_stage,
            reason=decision.reason if decision.kind is not Kind.OBSERVED else Rollout.reason,
            attention=True,
            changed_ms=seen.view.now_ms,
        )
    )
    if not isinstance(moved, CursorResult) or moved.rowcount != 1:
        return False
    await append(session, seen.row, number, decision, at_ms=seen.view.now_ms)
    return True


async def append(
    session: AsyncSession, row: Rollout, number: int, decision: Decision, *, at_ms: int
) -> None:
    """Append a row to the history of a rollout."""
    session.add(
        RolloutDecision(
            rollout_id=row.id,
            tenant=row.tenant,
            number=number,
            at_ms=at_ms,
            kind=decision.kind.value,
            reason=decision.reason,
            inputs=msgspec.json.encode(decision.inputs).decode(),
            devices=msgspec.json.encode(decision.devices).decode(),
        )
    )
    await session.flush()


async def _let_rest(session: AsyncSession, seen: Snapshot, head: Head) -> None:
    """Leave a rollout alone that is over, once every device has answered for the last time."""
    if head.status not in OVER:
        return
    awaited = select(RolloutMember.device_id).where(
        RolloutMember.rollout_id == seen.row.id,
        RolloutMember.state.in_([state.value for state in _AWAITED]),
    )
    if await session.scalar(awaited.limit(1)) is None:
        await session.execute(
            update(Rollout).where(Rollout.id == seen.row.id).values(attention=False)
        )


async def _supersede(session: AsyncSession, seen: Snapshot, head: Head) -> None:
    """Let devices that join follow the newest complete rollout of their group."""
    before = seen.view.head.status
    if head.status is before:
        return
    if head.status is Status.COMPLETED:
        await session.execute(
            update(Rollout)
            .where(
                Rollout.tenant == seen.row.tenant,
                Rollout.family == seen.row.family,
                Rollout.selector == seen.row.selector,
                Rollout.group_name.is_not_distinct_from(seen.row.group_name),
                Rollout.status == Status.COMPLETED.value,
                Rollout.superseded_by.is_(None),
                Rollout.id != seen.row.id,
            )
            .values(superseded_by=seen.row.id, attention=False)
        )
    elif before is Status.COMPLETED:
        await session.execute(
            update(Rollout)
            .where(Rollout.superseded_by == seen.row.id)
            .values(superseded_by=None, attention=True)
        )


async def _set(
    session: AsyncSession, seen: Snapshot, tally: Tally, devices: Sequence[str], **values: object
) -> None:
    """Change members, and count them where they are then: all their states are set here."""
    those = (RolloutMember.rollout_id == seen.row.id, RolloutMember.device_id.in_(devices))
    place = (RolloutMember.stage, RolloutMember.state, RolloutMember.excused)
    counted = select(*place, func.count()).where(*those).group_by(*place)
    tally.remove(places(await session.execute(counted)))
    await session.execute(update(RolloutMember).where(*those).values(**values))
    tally.add(places(await session.execute(counted)))


async def _keep(session: AsyncSession, seen: Snapshot, tally: Tally) -> None:
    kept = update(Rollout).where(Rollout.id == seen.row.id)
    await session.execute(kept.values(tally=tally.encode()))


def _observed(outcomes: Sequence[Outcome]) -> str:
    by_state: Mapping[MemberState, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        by_state[each.state].append(each)
    parts = []
    for state, those in by_state.items():
        named = [
            each.device_id
            if state in {_S.HEALTHY, _S.RETURNED}
            else f"{each.device_id}: {each.detail[:120]}"
            for each in those[:_NAMED]
        ]
        more = ", ..." if len(those) > _NAMED else ""
        parts.append(f"{len(those)} {state} ({', '.join(named)}{more})")
    return f"Devices settled: {'; '.join(parts)}."

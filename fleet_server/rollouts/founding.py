"""Makes rollouts, and takes in devices that join their groups later."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec
from sqlalchemy import ColumnElement, and_, exists, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.counting import counted
from fleet_server import tenancy
from fleet_server.assignments import entries
from fleet_server.assignments.tables import Assignment
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.devices import selection, selector
from fleet_server.devices.tables import Device, DeviceGroup
from fleet_server.errors import NotFoundError, RefusedError
from fleet_server.releases.tables import Release
from fleet_server.rollouts import history, membership, newer, rivals, snapshot
from fleet_server.rollouts import plan as plans
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import OnFailure, Plan
from fleet_server.rollouts.state import Decision, Head, Kind, Status
from fleet_server.rollouts.tables import Rollout, RolloutMember
from fleet_server.rollouts.tally import Tally

MAX_MEMBERS = 1_000_000
_BATCH = 1000
_JOIN_AT_ONCE = 200


class Founding:
    """Writes new rollouts and new members."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, plan: Plan, *, selector_text: str, group: str | None, who: str) -> int:
        """Store a rollout with its members; it begins at once. Returns its id.

        Raises:
            NotFoundError: there is no such release or group.
            RefusedError: the selector finds no device, or the plan does not fit what it finds.
            ConflictError: another rollout of the family is under way on one of the devices.
            SelectorError: the selector cannot be read.
            UnavailableError: the database failed.
        """
        parsed = selector.parse(selector_text)
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            await take_turn(session, rivals.turn(plan.family))
            release = await session.get(Release, (plan.family, plan.version))
            if release is None:
                raise NotFoundError(f"there is no release {plan.family} {plan.version}")
            tenant = tenancy.current()
            devices = await self._devices(
                session, plan, await _condition(session, tenant, parsed, group)
            )
            plan = membership.with_stages(plan, len(devices))
            first_of_family = not any(devices.values())
            if first_of_family:
                plan = msgspec.structs.replace(plan, comparison=None)
            await _check_counters(session, plan, release, set(devices.values()))
            ends = membership.stage_ends(plan, len(devices))
            row = Rollout(
                family=plan.family,
                version=plan.version,
                group_name=group,
                selector=str(parsed),
                plan=plans.encode(plan),
                revision=1,
                status=Status.RUNNING.value,
                tally=_all_waiting(ends).encode(),
                attention=True,
                reason="Created.",
                created_by=who,
                created_ms=now_ms,
                changed_ms=now_ms,
                **_HEAD,
            )
            session.add(row)
            await session.flush()
            ordered = membership.in_order(str(row.id), devices)
            await _insert(session, row.id, membership.staged(ordered, ends))
            await rivals.check(session, row)
            await history.append(
                session,
                row,
                1,
                Decision(
                    kind=Kind.CREATED,
                    reason=(
                        f"{who} created the rollout of {plan.family} {plan.version} to "
                        f"{counted(len(ordered), 'device')} in {counted(len(ends), 'stage')}."
                        + (_NOTHING_TO_COMPARE if first_of_family else "")
                    ),
                    inputs={"stage_ends": ends, "operator": who},
                    head=Head(),
                ),
                at_ms=now_ms,
            )
            return row.id

    async def admit(self, rollout_id: int) -> int:
        """Take in devices that joined the group of a rollout; returns how many.

        Those on which another rollout of the family is under way are left to it until it is over.
        A look that finds none writes nothing; what is found is read again in the transaction.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        async with self._database.reading() as session:
            seen = await snapshot.read(session, rollout_id, now_ms=now_ms)
            if seen.view.head.status not in {Status.RUNNING, Status.COMPLETED}:
                return 0
            if seen.row.superseded_by is not None:
                return 0
            if not await self._joined(session, seen.row):
                return 0
        async with self._database.writing() as session:
            await take_turn(session, rivals.turn(seen.row.family))
            joined = await self._joined(session, seen.row)
            if not joined or not await history.write(session, seen, _taken_in(seen, joined)):
                return 0
            last = len(seen.plan.stages) - 1
            await _insert(session, rollout_id, [(device_id, last) for device_id in joined])
        return len(joined)

    async def _devices(
        self, session: AsyncSession, plan: Plan, condition: ColumnElement[bool]
    ) -> dict[str, str]:
        """Return the selected devices, each with the version of the family that it is assigned."""
        query = (
            select(Device.id, Assignment.entries)
            .outerjoin(Assignment, Assignment.device_id == Device.id)
            .where(condition, Device.decommissioned_ms.is_(None))
            .limit(MAX_MEMBERS + 1)
        )
        devices = {
            device_id: _version(stored, plan.family)
            for device_id, stored in await session.execute(query)
        }
        if not devices:
            raise RefusedError("selector: no device that is in service matches it")
        if len(devices) > MAX_MEMBERS:
            raise RefusedError(f"selector: it matches more than {MAX_MEMBERS} devices; narrow it")
        return devices

    async def _joined(self, session: AsyncSession, row: Rollout) -> Sequence[str]:
        parsed = selector.parse(row.selector)
        try:
            condition = await _condition(session, row.tenant, parsed, row.group_name)
        except NotFoundError:
            return ()  # nobody joins a group that was removed
        own = select(RolloutMember.device_id).where(
            RolloutMember.device_id == Device.id, RolloutMember.rollout_id == row.id
        )
        query = (
            select(Device.id)
            .where(
                condition,
                Device.decommissioned_ms.is_(None),
                ~exists(own),
                ~newer.has_changed(row, Device.id),
                ~rivals.have(row, Device.id),
            )
            .order_by(Device.id)
            .limit(_JOIN_AT_ONCE)
        )
        return list(await session.scalars(query))


_NOTHING_TO_COMPARE = (
    " None of them has had the family, so there is nothing to compare it with: it is judged by "
    "what devices say of themselves."
)
_HEAD = {"stage": -1, "looks": 0, "compared_devices": 0, "compared_stage": -1}


async def _condition(
    session: AsyncSession, tenant: str, parsed: selector.Selector, group: str | None
) -> ColumnElement[bool]:
    own = and_(Device.tenant == tenant, selection.selected(parsed))
    if group is None:
        return own
    row = await session.get(DeviceGroup, (tenant, group))
    if row is None:
        raise NotFoundError(f"there is no group {group!r}")
    return and_(own, selection.selected(selector.parse(row.selector)))


def _version(stored: str | None, family: str) -> str:
    listed = entries.decode(stored) if stored else []
    return next((entry.version for entry in listed if entry.family == family), "")


async def _check_counters(
    session: AsyncSession, plan: Plan, release: Release, before: Iterable[str]
) -> None:
    """Refuse to promise a way back that devices would refuse to go."""
    if plan.on_failure is not OnFailure.ROLL_BACK:
        return
    query = select(Release.version).where(
        Release.family == plan.family,
        Release.version.in_(before),
        Release.security_counter < release.security_counter,
    )
    older = await session.scalar(query.order_by(Release.version).limit(1))
    if older is not None:
        raise RefusedError(
            f"plan.on_failure: a device that commits {plan.version} refuses to go back to {older}, "
            "whose security counter is lower; use on_failure=stop"
        )


def _all_waiting(ends: Sequence[int]) -> Tally:
    sizes = enumerate(end - first for first, end in pairwise([0, *ends]))
    return Tally({(stage, MemberState.WAITING, False): size for stage, size in sizes})


def _taken_in(seen: snapshot.Snapshot, joined: Sequence[str]) -> Decision:
    return Decision(
        kind=Kind.JOINED,
        reason=counted(
            len(joined),
            "device joined the group; its turn comes in the last stage.",
            "devices joined the group; their turn comes in the last stage.",
        ),
        inputs={"now_ms": seen.view.now_ms},
        head=seen.view.head,
        devices=tuple(joined),
    )


async def _insert(
    session: AsyncSession, rollout_id: int, staged: Sequence[tuple[str, int]]
) -> None:
    for start in range(0, len(staged), _BATCH):
        rows = [
            {
                "rollout_id": rollout_id,
                "device_id": device_id,
                "stage": stage,
                "rank": membership.rank(str(rollout_id), device_id),
                "state": MemberState.WAITING.value,
                "excused": False,
                "retries": 0,
                "detail": "",
            }
            for device_id, stage in staged[start : start + _BATCH]
        ]
        await session.execute(insert(RolloutMember), rows)

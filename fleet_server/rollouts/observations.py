"""Reads what devices did, for comparisons: a bounded number of devices, periods and rows.

Windows are placed by the device's own clock. A clock that is off moves calls between the periods
of devices that did not change, which blurs a comparison and does not bias it; on devices that
changed, the version itself tells before from after.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import case, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.histogram import Histogram, merged
from fleet_protocol.messages import ErrorKind, ModelWindow
from fleet_server.rollouts.comparison import Period, Sample, Samples
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import ComparisonPolicy
from fleet_server.rollouts.snapshot import Snapshot
from fleet_server.rollouts.tables import RolloutMember
from fleet_server.telemetry.tables import ModelCounts

MAX_COMPARED = 100
"""Devices of each kind: the tests find 20 % with far fewer, and the cost stays bounded."""

_USUAL_WINDOWS = 60
"""Of each device and side of its change: an hour, as often as agents report by default."""

_MOST_WINDOWS = 500
"""Where `min_requests` asks for more: agents store only windows that had a call."""

_Row = tuple[str, int, str, str]
"""Device, beginning of the window, release, counts."""


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    errors: int = 0
    histograms: list[Histogram] = field(default_factory=list)

    def add(self, model: ModelWindow) -> None:
        self.requests += model.requests
        self.errors += model.errors.get(ErrorKind.BACKEND, 0)
        self.histograms.append(model.latency_us)

    def period(self) -> Period:
        return Period(self.requests, self.errors, merged(self.histograms))


async def samples(session: AsyncSession, seen: Snapshot, policy: ComparisonPolicy) -> Samples:
    """Return the newest devices on the release, and devices that stayed on what they ran."""
    query = select(RolloutMember).where(RolloutMember.rollout_id == seen.row.id)
    # Written out, as the condition of its index is.
    healthy = RolloutMember.state == literal_column(f"'{MemberState.HEALTHY}'")
    newest = query.where(healthy).order_by(
        RolloutMember.stage.desc(), RolloutMember.ordered_ms.desc(), RolloutMember.rank
    )
    waiting = query.where(RolloutMember.state == MemberState.WAITING.value)
    new = list(await session.scalars(newest.limit(MAX_COMPARED)))
    stay = waiting.order_by(RolloutMember.retries, RolloutMember.stage, RolloutMember.rank)
    old = list(await session.scalars(stay.limit(MAX_COMPARED)))
    changed_ms = {row.device_id: row.ordered_ms or seen.view.now_ms for row in new}
    if not changed_ms:
        return Samples()
    pivot_ms = sorted(changed_ms.values())[len(changed_ms) // 2]
    changed_ms |= {row.device_id: pivot_ms for row in old}
    rows = await _rows(session, seen, changed_ms, policy)
    return await asyncio.to_thread(_samples, seen, changed_ms, rows, {row.device_id for row in new})


async def _rows(
    session: AsyncSession, seen: Snapshot, changed_ms: dict[str, int], policy: ComparisonPolicy
) -> Sequence[_Row]:
    """Return the newest windows of each device before its change, and as many after it.

    Each device has its own share of what is read: with one limit for all, those that report often
    or changed late would leave nothing of what the others did before. Windows are ranked without
    their counts, which are long and would all go through the sorting.
    """
    period_ms = int(policy.period_s * 1000)
    at_ms = case(changed_ms, value=ModelCounts.device_id)
    is_late = ModelCounts.start_ms >= at_ms
    newest = func.row_number().over(
        partition_by=(ModelCounts.device_id, is_late), order_by=ModelCounts.start_ms.desc()
    )
    ranked = (
        select(ModelCounts.id, newest.label("newest"))
        .where(
            ModelCounts.device_id.in_(changed_ms),
            ModelCounts.family == seen.plan.family,
            ModelCounts.start_ms >= min(changed_ms.values()) - period_ms,
            ModelCounts.start_ms.between(at_ms - period_ms, at_ms + 2 * period_ms),
        )
        .subquery()
    )
    most = min(max(_USUAL_WINDOWS, policy.min_requests), _MOST_WINDOWS)
    query = (
        select(ModelCounts.device_id, ModelCounts.start_ms, ModelCounts.version, ModelCounts.counts)
        .join(ranked, ranked.c.id == ModelCounts.id)
        .where(ranked.c.newest <= most)
    )
    return [(row[0], row[1], row[2], row[3]) for row in await session.execute(query)]


def _samples(
    seen: Snapshot,
    changed_ms: dict[str, int],
    rows: Sequence[_Row],
    new: set[str],
) -> Samples:
    before: dict[str, _Sum] = defaultdict(_Sum)
    after: dict[str, _Sum] = defaultdict(_Sum)
    for device_id, start_ms, version, stored in rows:
        on_release = version == seen.plan.version
        late = on_release if device_id in new else start_ms >= changed_ms[device_id]
        if late and device_id in new and start_ms < changed_ms[device_id]:
            continue  # an earlier rollout of the same release
        if on_release and device_id not in new:
            continue
        model = msgspec.json.decode(stored, type=ModelWindow)
        (after if late else before)[device_id].add(model)
    made = {
        device_id: Sample(before[device_id].period(), after[device_id].period())
        for device_id in changed_ms
    }
    return Samples(
        [sample for device_id, sample in made.items() if device_id in new],
        [sample for device_id, sample in made.items() if device_id not in new],
    )

"""Routes of telemetry: windows, events and sums for operators."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query

from fleet_server.accounts.authorization import Reader
from fleet_server.clock import unix_ms, utc_now
from fleet_server.keyset import MAX_COUNTED, Order
from fleet_server.paging import AfterId, InOrder, Limit, following
from fleet_server.services import Wired
from fleet_server.storable import StorableText
from fleet_server.telemetry.schemas import (
    DeviceSummary,
    EventCount,
    EventPage,
    EventView,
    FleetSummary,
    Latency,
    ReleaseSummary,
    StreamView,
    WindowPage,
    WindowView,
)
from fleet_server.telemetry.service import Period, StoredWindow, Totals
from fleet_server.telemetry.summary import ReleaseSum

router = APIRouter(prefix="/api/v1", tags=["telemetry"])

_HOUR_MS = 3_600_000
UnixMs = Annotated[int | None, Query(ge=0, le=2**53)]
Kind = Annotated[
    StorableText | None, Query(max_length=40, description="only events of it, such as `update`")
]


@router.get("/telemetry/summary")
async def fleet_summary(
    services: Wired,
    _account: Reader,
    from_: Annotated[UnixMs, Query(alias="from")] = None,
    to: UnixMs = None,
    family: Annotated[str | None, Query(max_length=64)] = None,
) -> FleetSummary:
    """Sum up what all devices did; without ``from`` and ``to`` (milliseconds) the last hour."""
    period = _period(from_, to)
    totals = await services.telemetry.totals(period, family=family)
    return _summary(period, totals)


@router.get("/telemetry/devices/{device_id}/summary")
async def device_summary(
    device_id: str,
    services: Wired,
    _account: Reader,
    from_: Annotated[UnixMs, Query(alias="from")] = None,
    to: UnixMs = None,
) -> DeviceSummary:
    """Sum up what one device did."""
    period = _period(from_, to)
    totals = await services.telemetry.totals(period, device_id=device_id)
    streams = [
        StreamView(
            stream=name,
            acked=reception.acked,
            ahead=sum(last - first + 1 for first, last in reception.ahead),
        )
        for name, reception in await services.telemetry.streams(device_id)
    ]
    summary = _summary(period, totals)
    return DeviceSummary(**dict(summary), device_id=device_id, streams=streams)


@router.get("/telemetry/devices/{device_id}/windows")
async def device_windows(
    device_id: str, services: Wired, _account: Reader, after: AfterId = None, limit: Limit = 100
) -> WindowPage:
    """List a device's windows in the order in which they were stored."""
    rows = await services.telemetry.windows(device_id, after=after, limit=limit)
    return WindowPage(
        windows=[_window(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.window.id),
    )


@router.get("/devices/{device_id}/events")
async def device_events(  # noqa: PLR0913 (each is asked for)
    *,
    device_id: str,
    services: Wired,
    _account: Reader,
    kind: Kind = None,
    after: AfterId = None,
    limit: Limit = 100,
    order: InOrder = Order.ASCENDING,
) -> EventPage:
    """List a device's events in the order in which they were stored, or against it."""
    rows = await services.telemetry.events(
        device_id, kind=kind, after=after, limit=limit, order=order
    )
    return EventPage(
        events=[EventView.model_validate(row, from_attributes=True) for row in rows],
        next_after=following(rows, limit, lambda row: row.id),
    )


@router.get("/devices/{device_id}/event-count")
async def count_device_events(
    device_id: str, services: Wired, _account: Reader, kind: Kind = None
) -> EventCount:
    """Count a device's events, up to 10,000: `is_capped` says that there may be more."""
    found = await services.telemetry.count_events(device_id, kind=kind, most=MAX_COUNTED)
    return EventCount(events=found, is_capped=found == MAX_COUNTED)


def _period(from_ms: int | None, to_ms: int | None) -> Period:
    end = to_ms if to_ms is not None else unix_ms(utc_now()) + 1
    return Period(from_ms if from_ms is not None else max(0, end - _HOUR_MS), end)


def _summary(period: Period, totals: Totals) -> FleetSummary:
    return FleetSummary(
        from_ms=period.from_ms,
        to_ms=period.to_ms,
        windows=totals.windows,
        windows_covered=totals.covered,
        releases=[_release(release) for release in totals.summary.releases],
    )


def _release(release: ReleaseSum) -> ReleaseSummary:
    latency = release.latency_us
    count = latency.count
    return ReleaseSummary(
        family=release.family,
        version=release.version,
        devices=len(release.devices),
        windows=release.windows,
        requests=release.requests,
        errors={kind.value: number for kind, number in release.errors.items()},
        variants=dict(release.variants),
        classes=dict(release.classes),
        latency=Latency(
            count=count,
            mean_us=latency.total / count if count else None,
            p50_us=latency.quantile(0.5),
            p95_us=latency.quantile(0.95),
            p99_us=latency.quantile(0.99),
        ),
    )


def _window(stored: StoredWindow) -> WindowView:
    row = stored.window
    return WindowView(
        id=row.id,
        stream=row.stream,
        sequence=row.sequence,
        covers_from=row.covers_from,
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        received_ms=row.received_ms,
        system=msgspec.json.decode(row.system),
        models=[msgspec.json.decode(text) for text in stored.models],
    )

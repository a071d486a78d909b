"""Fetches what is known of a page of devices; a bounded number of queries and rows a page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.messages import EventKind, ModelWindow, SystemWindow
from fleet_server.alerts.evidence import Calls, Evidence, Reading
from fleet_server.alerts.rules import MAX_WINDOW_S
from fleet_server.devices import attributes
from fleet_server.devices.tables import Device
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Window

PAGE = 200
"""Devices that are looked at together."""

_MAX_ROWS = 20_000
_RUNS = "runs."
_CLOCK_AHEAD_MS = 3_600_000
"""Windows are dated by the device; what it dates later than this is not believed."""


class _Alarms(msgspec.Struct, frozen=True):
    """The part of a ``Reported`` message that counts here; the rest is not even read."""

    alarms: list[str] = []


@dataclass(frozen=True, slots=True)
class Needs:
    """How far back the rules look, in milliseconds; 0 where none looks at it."""

    calls_ms: int
    drops_ms: int


async def page(session: AsyncSession, *, after: str) -> Sequence[Device]:
    """Return up to `PAGE` devices whose ids come after ``after``."""
    query = select(Device).where(Device.id > after).order_by(Device.id).limit(PAGE)
    return list(await session.scalars(query))


async def evidence(
    session: AsyncSession, devices: Sequence[Device], needs: Needs, *, now_ms: int
) -> list[Evidence]:
    """Return what is known of some devices."""
    ids = [device.id for device in devices]
    calls = await _calls(session, ids, needs, now_ms)
    drops = await _drops(session, ids, needs, now_ms)
    temperatures = await _temperatures(session, ids, now_ms)
    return [
        _evidence(each, calls.get(each.id, ()), drops.get(each.id, ()), temperatures.get(each.id))
        for each in devices
    ]


def _evidence(
    device: Device, calls: Sequence[Calls], drops_ms: Sequence[int], temperature: Reading | None
) -> Evidence:
    labels = attributes.decode_labels(device.labels)
    facts = attributes.decode_facts(device.facts)
    return Evidence(
        device_id=device.id,
        tenant=device.tenant,
        attributes=attributes.merged(device.id, labels, facts),
        in_service=device.decommissioned_ms is None and device.revoked_ms is None,
        last_seen_ms=device.last_seen_ms,
        runtime_up=device.runtime_up,
        alarms=_alarms(device.reported),
        certificate_expires_ms=device.certificate_expires_ms,
        families=frozenset(name[len(_RUNS) :] for name in facts if name.startswith(_RUNS)),
        calls=calls,
        drops_ms=drops_ms,
        temperature=temperature,
    )


def _alarms(reported: str | None) -> int | None:
    return None if reported is None else len(msgspec.json.decode(reported, type=_Alarms).alarms)


async def _calls(
    session: AsyncSession, ids: Sequence[str], needs: Needs, now_ms: int
) -> Mapping[str, Sequence[Calls]]:
    found: dict[str, list[Calls]] = defaultdict(list)
    if not needs.calls_ms:
        return found
    query = (
        select(ModelCounts.device_id, ModelCounts.start_ms, ModelCounts.counts)
        .where(
            ModelCounts.device_id.in_(ids),
            ModelCounts.start_ms >= now_ms - needs.calls_ms,
            ModelCounts.start_ms <= now_ms + _CLOCK_AHEAD_MS,
        )
        .order_by(ModelCounts.start_ms.desc())
        .limit(_MAX_ROWS)
    )
    for device_id, start_ms, counts in await session.execute(query):
        model = msgspec.json.decode(counts, type=ModelWindow)
        found[device_id].append(Calls(start_ms, model))
    return found


async def _drops(
    session: AsyncSession, ids: Sequence[str], needs: Needs, now_ms: int
) -> Mapping[str, Sequence[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    if not needs.drops_ms:
        return found
    query = (
        select(DeviceEvent.device_id, DeviceEvent.received_ms)
        .where(
            DeviceEvent.kind == EventKind.OUTBOX_DROPPED.value,
            DeviceEvent.device_id.in_(ids),
            DeviceEvent.received_ms >= now_ms - needs.drops_ms,
        )
        .limit(_MAX_ROWS)
    )
    for device_id, received_ms in await session.execute(query):
        found[device_id].append(received_ms)
    return found


async def _temperatures(
    session: AsyncSession, ids: Sequence[str], now_ms: int
) -> Mapping[str, Reading]:
    newest = (
        select(Window.id)
        .where(Window.device_id == Device.id)
        .order_by(Window.id.desc())
        .limit(1)
        .correlate(Device)
        .scalar_subquery()
    )
    query = (
        select(Window.device_id, Window.start_ms, Window.system)
        .join(Device, Window.id == newest)
        .where(Device.id.in_(ids), Window.start_ms >= now_ms - MAX_WINDOW_S * 1000)
    )
    found = {}
    for device_id, start_ms, stored in await session.execute(query):
        celsius = msgspec.json.decode(stored, type=SystemWindow).temperature_celsius
        if celsius is not None:
            found[device_id] = Reading(start_ms, celsius)
    return found

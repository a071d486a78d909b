"""Keeps `DeviceTerm` equal to a device's labels and facts, in the transaction that changes them.

With them go the terms that are derived from them (`fleet_server.devices.derived`).
"""

from collections.abc import Iterable

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.messages import Reported
from fleet_server.devices import attributes, derived
from fleet_server.devices.attributes import Facts, Labels
from fleet_server.devices.selector import ID, number_of
from fleet_server.devices.tables import Device, DeviceTerm

Pairs = set[tuple[str, str]]

_NEITHER_LABEL_NOR_FACT = {ID, derived.NAMES, derived.STEM}


async def add(session: AsyncSession, device: Device) -> None:
    """Let a device without attributes be found by its id, if it is not yet."""
    if await session.get(DeviceTerm, (device.id, ID, device.id)) is None:
        found_by = {(ID, device.id), (derived.STEM, derived.stem(device.id))}
        await _replace(session, device.id, device.tenant, set(), {*found_by, *_with_names({})})


async def set_labels(session: AsyncSession, device: Device, labels: Labels) -> None:
    """Replace the labels of a device that the session holds locked."""
    before = attributes.decode_labels(device.labels)
    facts = attributes.decode_facts(device.facts)
    device.labels = attributes.encode(labels)
    old = {*before.items(), *_with_names({*before, *facts})}
    new = {*labels.items(), *_with_names({*labels, *facts})}
    await _replace(session, device.id, device.tenant, old, new)


async def take_report(session: AsyncSession, device_id: str, reported: Reported) -> None:
    """Take over the facts of a device's report."""
    # Not against rows that refer to devices: a new rollout locks those in another order.
    query = select(Device.labels, Device.facts, Device.tenant).where(Device.id == device_id)
    stored = (await session.execute(query.with_for_update(key_share=True))).one()
    before = attributes.decode_facts(stored.facts)
    facts = attributes.facts_of(reported)
    if facts == before:
        return
    await session.execute(
        update(Device).where(Device.id == device_id).values(facts=attributes.encode(facts))
    )
    labels = attributes.decode_labels(stored.labels)
    old = {*pairs(before), *_with_names({*labels, *before})}
    new = {*pairs(facts), *_with_names({*labels, *facts})}
    await _replace(session, device_id, stored.tenant, old, new)


def pairs(facts: Facts) -> Pairs:
    """Return each value with its name."""
    return {(name, value) for name, values in facts.items() for value in values}


def _with_names(names: Iterable[str]) -> Pairs:
    return {(derived.NAMES, derived.names_key(names))}


async def _replace(
    session: AsyncSession, device_id: str, tenant: str, before: Pairs, after: Pairs
) -> None:
    for name, value in sorted(before - after):
        await session.execute(
            delete(DeviceTerm).where(
                DeviceTerm.device_id == device_id,
                DeviceTerm.name == name,
                DeviceTerm.value == value,
            )
        )
    added = [
        {
            "device_id": device_id,
            "tenant": tenant,
            "name": name,
            "value": value,
            "number": None if name in _NEITHER_LABEL_NOR_FACT else number_of(value),
        }
        for name, value in sorted(after - before)
    ]
    if added:
        await session.execute(insert(DeviceTerm), added)

"""Keeps `DeviceTerm` equal to a device's labels and facts, in the transaction that changes them."""

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.messages import Reported
from fleet_server.devices import attributes
from fleet_server.devices.attributes import Facts, Labels
from fleet_server.devices.selector import ID, number_of
from fleet_server.devices.tables import Device, DeviceTerm

Pairs = set[tuple[str, str]]


async def add(session: AsyncSession, device: Device) -> None:
    """Let a device be found by its id, if it is not yet."""
    if await session.get(DeviceTerm, (device.id, ID, device.id)) is None:
        await _replace(session, device.id, device.tenant, set(), {(ID, device.id)})


async def set_labels(session: AsyncSession, device: Device, labels: Labels) -> None:
    """Replace the labels of a device that the session holds locked."""
    before = attributes.decode_labels(device.labels)
    device.labels = attributes.encode(labels)
    old, new = set(before.items()), set(labels.items())
    await _replace(session, device.id, device.tenant, old, new)


async def take_report(session: AsyncSession, device_id: str, reported: Reported) -> None:
    """Take over the facts of a device's report."""
    # Not against rows that refer to devices: a new rollout locks those in another order.
    query = select(Device.facts, Device.tenant).where(Device.id == device_id)
    stored = (await session.execute(query.with_for_update(key_share=True))).one()
    before = attributes.decode_facts(stored.facts)
    facts = attributes.facts_of(reported)
    if facts == before:
        return
    await session.execute(
        update(Device).where(Device.id == device_id).values(facts=attributes.encode(facts))
    )
    await _replace(session, device_id, stored.tenant, pairs(before), pairs(facts))


def pairs(facts: Facts) -> Pairs:
    """Return each value with its name."""
    return {(name, value) for name, values in facts.items() for value in values}


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
            "number": None if name == ID else number_of(value),
        }
        for name, value in sorted(after - before)
    ]
    if added:
        await session.execute(insert(DeviceTerm), added)

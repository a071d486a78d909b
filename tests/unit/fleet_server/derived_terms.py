"""Checks the terms that are derived from devices' attributes against those attributes."""

from collections import defaultdict

from sqlalchemy import select

from fleet_server.database import Database
from fleet_server.devices import derived
from fleet_server.devices.selector import ID
from fleet_server.devices.tables import DeviceTerm


async def wrong(database: Database) -> dict[str, dict[str, list[str]]]:
    """Return what is stored of devices whose derived terms do not fit the others."""
    stored: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    async with database.reading() as session:
        for term in await session.scalars(select(DeviceTerm)):
            stored[term.device_id][term.name].append(term.value)
    assert stored
    return {device_id: found for device_id, found in stored.items() if not _fits(device_id, found)}


def _fits(device_id: str, found: dict[str, list[str]]) -> bool:
    names = found.keys() - {ID, derived.NAMES, derived.STEM}
    expected = ([derived.names_key(names)], [device_id.rstrip("0123456789")])
    return (found.get(derived.NAMES), found.get(derived.STEM)) == expected

"""Readiness tells whether devices can be served: what is sent has to be stored, too."""

import pytest
from sqlalchemy import text

from fleet_server import database as module
from fleet_server.database import Database
from fleet_server.errors import UnavailableError
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.in_process_app import wired

REFUSING = {
    True: "SET TRANSACTION READ ONLY",  # as a standby is
    False: "PRAGMA query_only=ON",
}


async def write(database: Database, *statements: str) -> None:
    async with database.writing() as session:
        for each in statements:
            await session.execute(text(each))


async def test_a_database_that_stores_nothing_is_down_though_it_is_read(
    fleet: Fleet, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    components = (await wired(fleet, database)).components
    assert (await components.states())["database"]
    refusing = REFUSING[database_url.startswith("postgresql")]
    with pytest.raises(UnavailableError):
        await write(database, refusing, "DELETE FROM tenants")
    assert not (await components.states())["database"]
    monkeypatch.setattr(module, "_REFUSES_FOR_S", 0.0)
    assert (await components.states())["database"]


async def test_a_wrong_statement_says_nothing_of_the_disk(database: Database) -> None:
    with pytest.raises(UnavailableError):
        await write(database, "INSERT INTO nowhere VALUES (1)")
    assert database.stores

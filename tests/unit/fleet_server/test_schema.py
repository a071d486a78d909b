"""The migrations make the schema of the code, once, on both databases and from every release."""

from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, text

from fleet_server import migrate
from fleet_server.database import Database, sqlite_url
from fleet_server.database_engine import make_engine
from fleet_server.devices.tables import Device
from fleet_server.errors import SetupError
from fleet_server.telemetry.tables import Window
from tests.simulators.postgresql_cluster import Cluster
from tests.unit.fleet_server import derived_terms

SCHEMAS = Path(__file__).with_name("schemas")
"""A dump of a filled database for each released schema, as the tools of the database write it."""


def differences(connection: Connection) -> list[object]:
    # The index over parts of ids may be missing, where its extension is.
    compared = {"include_name": lambda name, *_: name != "ix_term_search"}
    found: list[object] = compare_metadata(
        MigrationContext.configure(connection, opts=compared), migrate.metadata()
    )
    return found


async def differences_of(url: str) -> list[object]:
    engine = make_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    return found


async def test_migrations_and_tables_agree(database_url: str) -> None:
    assert await migrate.upgrade(database_url) == migrate.head()
    assert await differences_of(database_url) == []


async def test_the_file_is_private(tmp_path: Path) -> None:
    await migrate.upgrade(sqlite_url(tmp_path / "fleet.db"))
    assert (tmp_path / "fleet.db").stat().st_mode & 0o777 == 0o600


async def load_dump(url: str, script: str) -> None:
    engine = make_engine(url, foreign_keys=False)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await (raw.execute if isinstance(raw, asyncpg.Connection) else raw.executescript)(script)
    await engine.dispose()


async def empty_database(kind: str, tmp_path: Path, cluster: Cluster) -> str:
    if kind == "sqlite":
        return sqlite_url(tmp_path / "old.db")
    return await cluster.create(migrated=False)


@pytest.mark.parametrize(
    ("dumped", "kind"),
    [
        pytest.param(path.read_text(), path.name.split(".")[1], id=path.name)
        for path in sorted(SCHEMAS.iterdir())
    ],
)
async def test_every_released_schema_is_upgraded_with_its_data(
    dumped: str, kind: str, tmp_path: Path, cluster: Cluster
) -> None:
    url = await empty_database(kind, tmp_path, cluster)
    await load_dump(url, dumped)
    assert await migrate.upgrade(url) == migrate.head()
    assert await differences_of(url) == []
    database = Database(url)
    async with database.reading() as session:
        devices = list(await session.scalars(select(Device.id).order_by(Device.id)))
        windows = list(await session.scalars(select(Window.sequence).order_by(Window.id)))
    assert await derived_terms.wrong(database) == {}
    await database.close()
    assert devices == ["cam-01", "cam-02"]
    assert windows == [1, 2]


async def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    database = Database(database_url)
    async with database.writing() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(SetupError, match="another version of skerry"):
        await migrate.upgrade(database_url)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_step_that_fails_leaves_the_schema_as_it_was(
    kind: str, tmp_path: Path, cluster: Cluster
) -> None:
    url = await empty_database(kind, tmp_path, cluster)
    engine = make_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE devices (id INTEGER)"))
    with pytest.raises(SetupError, match="devices"):
        await migrate.upgrade(url)
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="api_tokens"):
            await connection.execute(text("SELECT * FROM api_tokens"))
    await engine.dispose()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"not a database" * 100)
    with pytest.raises(SetupError, match=r"fleet\.db cannot be used: .*is not a database; see"):
        await migrate.upgrade(sqlite_url(tmp_path / "fleet.db"))


async def test_a_server_does_not_start_on_another_schema(cluster: Cluster) -> None:
    url = await cluster.create(migrated=False)
    with pytest.raises(SetupError, match="run `skerry server migrate` once"):
        await migrate.prepare(url)
    await migrate.upgrade(url)
    await migrate.prepare(url)


async def test_who_cannot_reach_the_database_is_told_so_without_the_password() -> None:
    with pytest.raises(SetupError, match=r"127\.0\.0\.1:1/fleet cannot be used") as raised:
        await migrate.prepare("postgresql://skerry:hunter2@127.0.0.1:1/fleet")
    assert "database_url" in str(raised.value)
    assert "hunter2" not in str(raised.value)

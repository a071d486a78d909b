"""A database that a test had is for the next one as it was made, or it is not used again."""

import asyncpg
import pytest

from tests.simulators.postgresql_cluster import Cluster

RELATIONS = """
SELECT oid::regclass::text FROM pg_class
WHERE relkind IN ('r', 'S') AND relnamespace = 'public'::regnamespace
"""
WRITES = """
UPDATE device_change_counter SET number = 7;
DELETE FROM tenants;
INSERT INTO tenants VALUES ('another');
SELECT nextval('telemetry_windows_id_seq')
"""


async def content(url: str) -> dict[str, object]:
    """Return the rows of all tables, and where the sequences stand."""
    connection = await asyncpg.connect(url)
    try:
        names = [str(row[0]) for row in await connection.fetch(RELATIONS)]
        return {name: await connection.fetchval(_rows(name)) for name in names}
    finally:
        await connection.close()


def _rows(name: str) -> str:
    shown = "last_value, is_called" if name.endswith("_seq") else "*"
    return f"SELECT coalesce(json_agg(each), '[]')::text FROM (SELECT {shown} FROM {name}) AS each"  # noqa: S608 (a name)


async def test_it_is_emptied_while_somebody_is_connected(cluster: Cluster) -> None:
    new, used = await cluster.create(), await cluster.create()
    made = await content(new)
    connection = await asyncpg.connect(used)
    await connection.execute(WRITES)
    assert await content(used) != made
    await cluster.drop(used)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetch("SELECT 1")
    again = await cluster.create()
    assert again == used
    assert await content(again) == made
    for url in (new, again):
        await cluster.drop(url)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tenants ADD COLUMN colour TEXT",
        "CREATE INDEX additional ON tenants (name)",
        "ALTER TABLE tenants DROP CONSTRAINT tenants_pkey CASCADE",
        "CREATE TABLE additional (id INTEGER)",
        "INSERT INTO tenants SELECT repeat('x', 50) || n FROM generate_series(1, 60000) AS n",
    ],
)
async def test_one_that_cannot_come_back_is_not_used_again(cluster: Cluster, change: str) -> None:
    used = await cluster.create()
    connection = await asyncpg.connect(used)
    await connection.execute(change)
    await connection.close()
    await cluster.drop(used)
    following = await cluster.create()
    assert following != used
    await cluster.drop(following)

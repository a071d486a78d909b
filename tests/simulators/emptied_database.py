"""Brings a PostgreSQL database back to what it held when it was made.

Making one costs a sixth of a second of a processor, for its files; this costs a hundredth. What
cannot be brought back, as a changed schema, is said and not tried.
"""

from dataclasses import dataclass

from asyncpg import Connection

_TABLES = "relkind = 'r' AND relnamespace = 'public'::regnamespace"
_WRITTEN = f"""
SELECT oid::regclass::text AS name, pg_relation_size(oid) AS bytes FROM pg_class
WHERE {_TABLES} AND pg_relation_size(oid) > 0
"""  # noqa: S608 (nothing of it comes from elsewhere)
_CATALOG = " UNION ALL ".join(
    f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM {name}"  # noqa: S608 (names)
    for name in ("pg_class", "pg_attribute", "pg_constraint", "pg_index", "pg_proc", "pg_trigger")
)
"""Each statement that changes a schema leaves rows of a newer transaction in one of these."""

_DISCONNECT = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_MOST_BYTES = 4_000_000
"""A table that grew further is not worth its empty pages."""


@dataclass(frozen=True)
class Original:
    """What a database holds whose schema has just been made.

    Attributes:
        catalog: identifies the schema.
        rows: those of each table that has some, as a list in JSON.
    """

    catalog: list[tuple[object, ...]]
    rows: dict[str, str]

    @classmethod
    async def of(cls, connection: Connection) -> "Original":
        """Read it."""
        used = "SELECT count(*) FROM pg_sequences WHERE last_value IS NOT NULL"
        assert not await connection.fetchval(used), "a sequence does not start at its beginning"
        names = [str(row["name"]) for row in await connection.fetch(_WRITTEN)]
        query = "SELECT coalesce(json_agg(each), '[]')::text FROM {} AS each"
        rows = {name: str(await connection.fetchval(query.format(name))) for name in names}
        return cls(await _catalog(connection), rows)

    async def restore(self, connection: Connection) -> bool:
        """Bring a database back to it and end all other connections; returns whether that went."""
        await connection.execute(_DISCONNECT)
        written = await connection.fetch(_WRITTEN)
        if max((row["bytes"] for row in written), default=0) > _MOST_BYTES:
            return False
        if await _catalog(connection) != self.catalog:
            return False
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # any order
            await connection.execute("; ".join(f"DELETE FROM {row['name']}" for row in written))  # noqa: S608 (names)
            for name, rows in self.rows.items():
                await connection.execute(
                    f"INSERT INTO {name} SELECT * FROM json_populate_recordset(null::{name}, $1)",  # noqa: S608 (a name)
                    rows,
                )
            await connection.execute("SELECT setval(seqrelid, seqstart, false) FROM pg_sequence")
        return True


async def _catalog(connection: Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await connection.fetch(_CATALOG)]

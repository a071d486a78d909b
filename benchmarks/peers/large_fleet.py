"""A PostgreSQL server with a million devices, which is kept for the next time.

The database makes the rows itself, a hundred thousand devices at a time, and their indices last.
Sites are of unequal size, and most ids begin with the site, so that what a selector looks for lies
together in the order of the list: the case in which walking the list and filtering is slowest. One
device in a thousand belongs to a second tenant; one site in fifty has lost its network.
"""

import hashlib
import os
import runpy
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from benchmarks.measuring.environments import CACHE_VARIABLE, PROJECT, cache_folder
from fleet_server import migrate
from fleet_server.clock import unix_ms
from fleet_server.devices import derived

if TYPE_CHECKING:
    from tests.simulators.postgresql_cluster import Cluster

DEVICES = 1_000_000
SITES = 50
SMALL_TENANT = "acme"
SETTINGS = ("shared_buffers=6GB", "work_mem=16MB", "random_page_cost=1.1", "max_wal_size=4GB")

_DATABASE = "fleet"
_AT_ONCE = 100_000
_STAMP = "loaded-at-unix-ms"
_NAMES = {
    *("site", "rack", "tier", "machine", "ram_gib", "accelerator", "agent_version"),
    "runs.fashion_mnist",
}
"""Of the attributes of most devices."""
_TABLES = ("devices", "device_terms", "assignments")

_TEMPORARY = "CREATE TEMPORARY TABLE numbered (n int, site int, tenant text, id text)"
_NUMBERED = """
INSERT INTO numbered SELECT n, site, CASE WHEN n % 1000 = 0 THEN 'acme' ELSE 'default' END,
    CASE WHEN n % 4 = 0 THEN 'cam' ELSE 'site-' || site END || '-' || lpad(n::text, 7, '0')
FROM (SELECT n, floor(50 * power(random(), 2))::int AS site
      FROM generate_series($1::int, $2::int) n) s
"""

_FILLED = (
    """
INSERT INTO devices (id, tenant, claim, public_key_pem, public_key_sha256, certificate_pem,
    certificate_serial, certificate_expires_ms, enrolled_ms, decommissioned_ms, revoked_ms, online,
    last_seen_ms, silent, reported, runtime_up, labels, facts)
SELECT id, tenant, '', repeat(md5(id), 6), md5(id) || md5(id), repeat(md5(id), 25), n::text,
    $1 + (CASE WHEN n % 5000 = 1 THEN -1 ELSE 60 END) * 86400000::bigint, $1,
    CASE WHEN n % 2000 = 2 THEN $1 END, CASE WHEN n % 10000 = 3 THEN $1 END, n % 20 <> 0,
    CASE WHEN n % 3000 = 4 THEN NULL WHEN n % 100 = 0 OR site = 37 THEN $1 - 86400000
        ELSE $1 - n % 300000 END, n % 3000 <> 4 AND (n % 100 = 0 OR site = 37),
    repeat(md5(id), 20), n % 1000 <> 5,
    jsonb_build_object('site', 'site-' || site, 'rack', (n % 400)::text)::text,
    '{"machine":["aarch64"]}'
FROM numbered
""",
    """
INSERT INTO device_terms (device_id, tenant, name, value, number)
SELECT id, tenant, x.name, x.value, x.number
FROM numbered, LATERAL (VALUES
    ('id', id, NULL::float8),
    ('~stem', rtrim(id, '0123456789'), NULL),
    ('~names', CASE WHEN n % 200 = 0 THEN '$with_legacy' ELSE '$without_legacy' END, NULL),
    ('site', 'site-' || site, NULL),
    ('rack', (n % 400)::text, n % 400),
    ('tier', CASE WHEN n % 10 = 0 THEN 'canary' ELSE 'main' END, NULL),
    ('legacy', CASE WHEN n % 200 = 0 THEN 'true' END, NULL),
    ('machine', CASE WHEN n % 3 = 0 THEN 'x86_64' ELSE 'aarch64' END, NULL),
    ('ram_gib', (ARRAY['1.9', '3.8', '7.7', '15.5'])[1 + n % 4],
        (ARRAY[1.9, 3.8, 7.7, 15.5])[1 + n % 4]),
    ('accelerator', (ARRAY['cpu', 'cpu', 'cpu', 'edgetpu', 'cuda'])[1 + n % 5], NULL),
    ('agent_version', '0.1.' || n % 7, NULL),
    ('runs.fashion_mnist', CASE WHEN n % 20000 = 7 THEN '0.9.0' WHEN n % 100 = 0 THEN '1.1.0'
        ELSE '1.0.0' END, NULL)
) AS x (name, value, number)
WHERE x.value IS NOT NULL
""",
    """
INSERT INTO assignments (device_id, version, signed_ms, expires_ms, entries, document)
SELECT id, 1, $1, $1 + 30 * 86400000::bigint, '[]', convert_to(repeat(md5(id), 30), 'UTF8')
FROM numbered
""",
)


@asynccontextmanager
async def large_fleet() -> AsyncIterator["LargeFleet"]:
    """Run a server with the fleet while the block lasts."""
    fleet = LargeFleet()
    try:
        await fleet.start()
        yield fleet
    finally:
        fleet.stop()


class LargeFleet:
    """A server with the fleet; it is filled when it was not yet, and gets the present schema."""

    def __init__(self) -> None:
        # By its path: libraries install a package `tests` of their own.
        simulator = PROJECT / "tests/simulators/postgresql_cluster.py"
        kind: type[Cluster] = runpy.run_path(str(simulator))["Cluster"]
        self._cluster = kind(*SETTINGS, folder=_folder())
        self.url = self._cluster.url(_DATABASE)

    @property
    def now_ms(self) -> int:
        """When the devices were heard of last, about."""
        return int(self._stamp.read_text())

    @property
    def _stamp(self) -> Path:
        return self._cluster.folder / _STAMP

    async def start(self) -> None:
        """Start the server, and make what is missing."""
        self._cluster.start()
        if self._stamp.exists():
            await migrate.upgrade(self.url)
            return
        print(f"loading {DEVICES:,} devices into {self._cluster.folder}, which is kept", flush=True)
        await self._recreate()
        await migrate.upgrade(self.url)
        now_ms = unix_ms(datetime.now(UTC))
        await _fill(self.url, now_ms)
        self._stamp.write_text(str(now_ms))

    def stop(self) -> None:
        """Stop the server; its folder stays."""
        self._cluster.stop()

    async def _recreate(self) -> None:
        connection = await asyncpg.connect(self._cluster.url("postgres"))
        await connection.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {_DATABASE}")
        await connection.close()


async def _fill(url: str, now_ms: int) -> None:
    connection = await asyncpg.connect(url, command_timeout=900)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await connection.execute(_TEMPORARY)
        indices = await _indices_dropped(connection)
        for first in range(1, DEVICES, _AT_ONCE):
            began = time.perf_counter()
            await connection.execute(_NUMBERED, first, first + _AT_ONCE - 1)
            for statement in _FILLED:
                await connection.execute(_completed(statement, now_ms))
            await connection.execute("TRUNCATE numbered")
            _say(f"{first + _AT_ONCE - 1:,} devices", began)
        for statement in indices:
            began = time.perf_counter()
            await connection.execute(statement)
            _say(statement[:70], began)
        began = time.perf_counter()
        await connection.execute("VACUUM ANALYZE")
        _say("VACUUM ANALYZE", began)
    finally:
        await connection.close()


def _completed(statement: str, now_ms: int) -> str:
    """Fill in the time, and what stands for the names of a device's attributes."""
    for placeholder, names in (("$with_legacy", {*_NAMES, "legacy"}), ("$without_legacy", _NAMES)):
        statement = statement.replace(placeholder, derived.names_key(names))
    return statement.replace("$1", str(now_ms))


async def _indices_dropped(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """Drop indices and keys, as a restored dump has none at first; return how they are made."""
    keys = await connection.fetch(
        "SELECT conrelid::regclass::text AS made_for, conname, pg_get_constraintdef(oid) AS key "
        "FROM pg_constraint WHERE conrelid = ANY($1::regclass[]) AND contype IN ('p', 'f') "
        "OR confrelid = 'devices'::regclass ORDER BY contype DESC",
        list(_TABLES),
    )
    for each in reversed(keys):
        await connection.execute(
            f"ALTER TABLE {each['made_for']} DROP CONSTRAINT {each['conname']}"
        )
    plain = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
        "AND tablename = ANY($1)",
        list(_TABLES),
    )
    for each in plain:
        await connection.execute(f'DROP INDEX "{each["indexname"]}"')
    made = [each["indexdef"] for each in plain]
    made += [f"ALTER TABLE {k['made_for']} ADD CONSTRAINT {k['conname']} {k['key']}" for k in keys]
    return made


def _folder() -> Path:
    """Return the folder of a fleet made by this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    kept = cache_folder()
    if os.geteuid() == 0 and CACHE_VARIABLE not in os.environ:
        kept = Path("/var/cache/skerry-bench")  # root's home is closed to PostgreSQL's user
    folder = kept / f"large_fleet-{digest}"
    for old in kept.glob("large_fleet-*"):
        if old != folder and not (old / "data/postmaster.pid").exists():
            shutil.rmtree(old)
    return folder


def _say(what: str, began: float) -> None:
    print(f"  {what}: {time.perf_counter() - began:.0f} s", flush=True)

"""One look at a rollout with a million members in PostgreSQL, as servers take it before each step.

The members are made anew for each run, half of them through and some of them failed, and are
removed at its end: the fleet is that of `device_queries`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from benchmarks import report
from benchmarks.peers.large_fleet import large_fleet
from benchmarks.report import Row, figure
from fleet_server.database import Database
from fleet_server.rollouts import plan as plans
from fleet_server.rollouts import snapshot
from fleet_server.rollouts.plan import Plan, Stage
from fleet_server.rollouts.state import Status
from fleet_server.rollouts.tally import Tally, places

HOW = (
    "make bench NAME=rollout_queries (1,000,000 members: 500,000 healthy, 2,000 failed, 200 in "
    "flight, the others waiting, 300 of them for another try; warm cache)"
)

_ASKED = 20
_PLAN = Plan(
    family="fashion_mnist",
    version="2.0.0",
    stages=(Stage(count=500_000), Stage(percent=100)),
)
_ROLLOUT = """
INSERT INTO rollouts (family, version, selector, plan, revision, status, stage, looks,
    compared_devices, compared_stage, tally, attention, reason, created_by, created_ms, changed_ms)
VALUES ('fashion_mnist', '2.0.0', '*', $1, 1, 'running', 1, 0, 0, -1, $3, false, '', 'bench', $2,
    $2)
RETURNING id
"""
_COUNTED = "SELECT stage, state, excused, count(*) FROM rollout_members GROUP BY 1, 2, 3"
_MEMBERS = """
INSERT INTO rollout_members (rollout_id, device_id, stage, rank, state, excused, retries,
    previous_version, ordered_ms, assignment_version, settled_ms, detail)
SELECT $1, id, n / 500000, hashtextextended(id, 1) >> 2,
    CASE WHEN n < 500000 AND n % 250 = 1 THEN 'failed' WHEN n < 500000 THEN 'healthy'
        WHEN n < 500200 THEN 'activating' ELSE 'waiting' END,
    false, CASE WHEN n BETWEEN 600000 AND 600299 THEN 1 ELSE 0 END,
    '1.0.0', CASE WHEN n < 500200 THEN $2::bigint - n END, 1,
    CASE WHEN n < 500000 THEN $2::bigint - n END, ''
FROM (SELECT id, (row_number() OVER (ORDER BY md5(id)) - 1)::int AS n FROM devices) d
"""


def run() -> list[Row]:
    """Make the fleet, if it is not there, and measure."""
    return asyncio.run(_measured())


async def _measured() -> list[Row]:
    async with large_fleet() as fleet:
        connection = await asyncpg.connect(fleet.url, command_timeout=300)
        database = Database(fleet.url)
        try:
            rollout_id = await _made(connection, fleet.now_ms)
            return await _rows(connection, database, rollout_id, fleet.now_ms)
        finally:
            await connection.execute("TRUNCATE rollouts, rollout_members CASCADE")
            await connection.close()
            await database.close()


async def _made(connection: "asyncpg.Connection[asyncpg.Record]", now_ms: int) -> int:
    await connection.execute("SET session_replication_role = replica")  # no look-ups of devices
    await connection.execute("TRUNCATE rollouts, rollout_members CASCADE")
    rollout_id: int = await connection.fetchval(_ROLLOUT, plans.encode(_PLAN), now_ms, "[]")
    await connection.execute(_MEMBERS, rollout_id, now_ms)
    tally = Tally(places(map(tuple, await connection.fetch(_COUNTED))))
    await connection.execute("UPDATE rollouts SET tally = $1", tally.encode())
    await connection.execute("VACUUM ANALYZE rollout_members")
    return rollout_id


async def _rows(
    connection: "asyncpg.Connection[asyncpg.Record]",
    database: Database,
    rollout_id: int,
    now_ms: int,
) -> list[Row]:
    rows: list[Row] = []
    for status in (Status.RUNNING, Status.PAUSED, Status.ROLLING_BACK, Status.COMPLETED):
        await connection.execute("UPDATE rollouts SET status = $1", status.value)

        async def look() -> None:
            async with database.reading() as session:
                await snapshot.read(session, rollout_id, now_ms=now_ms)

        rows += _of_times(f"look at a rollout, {status.value}", await _taken(look))

    async def count() -> None:
        await connection.fetch(_COUNTED)

    rows += _of_times("instead of that: count members by stage and state", await _taken(count))
    report.save("rollout_queries", rows)
    return rows


async def _taken(ask: Callable[[], Awaitable[Any]]) -> list[float]:
    taken = []
    for number in range(_ASKED + 2):
        began = time.perf_counter()
        await ask()
        if number >= 2:  # noqa: PLR2004 (the first ones prepare the statements)
            taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


def _of_times(name: str, taken: list[float]) -> list[Row]:
    p95 = taken[int(0.95 * (len(taken) - 1))]
    return [
        figure(f"{name}, p50", round(taken[len(taken) // 2], 1), "ms", HOW),
        figure(f"{name}, p95", round(p95, 1), "ms", HOW),
    ]

"""Device lists and selectors over a million devices in PostgreSQL, in pages of 100.

Each kind of query is asked with other values and from other places in the list each time; the time
is that of the service, with the tenant's condition and the rows read, without HTTP.
"""

import asyncio
import random
import runpy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.large_fleet import SITES, fill
from benchmarks.report import Row, at_most, figure
from fleet_server import tenancy
from fleet_server.clock import unix_ms, utc_now
from fleet_server.database import Database
from fleet_server.devices.health import Health
from fleet_server.devices.selector import parse
from fleet_server.devices.service import Devices, Filters

if TYPE_CHECKING:
    from tests.simulators.postgresql_cluster import Cluster

HOW = "make bench NAME=device_queries (1,000,000 devices, 8,900,000 values, pages of 100)"
DEVICES = 1_000_000
GOAL_MS = 50.0
SETTINGS = ("shared_buffers=1GB", "work_mem=16MB", "random_page_cost=1.1")

_ASKED = 60
"""Times that each kind is asked."""

_RANDOM = random.Random(7)  # noqa: S311 (drawn values of a benchmark)


def _site() -> str:
    return f"site-{_RANDOM.randrange(SITES)}"


def _selected(text: str) -> Filters:
    return Filters(selectors=(parse(text),))


KINDS: dict[str, Callable[[], Filters]] = {
    "all": Filters,
    "site": lambda: _selected(f"site={_site()}"),
    "rare label": lambda: _selected("legacy"),
    "rare label of a site": lambda: _selected(f"site={_site()},legacy"),
    "two values of a fact": lambda: _selected("accelerator in (edgetpu,cuda)"),
    "number": lambda: _selected("ram_gib>=7"),
    "narrow number": lambda: _selected(f"rack={_RANDOM.randrange(400)},ram_gib<2"),
    "without a label": lambda: _selected("!legacy,accelerator!=cpu"),
    "all four": lambda: _selected(
        f"site={_site()},accelerator in (edgetpu,cuda),!legacy,ram_gib>=2"
    ),
    "left behind": lambda: _selected("runs.fashion_mnist!=1.0.0"),
    "nothing": lambda: _selected(f"site={_site()},accelerator=tpu9"),
    "search": lambda: Filters(search=f"{_RANDOM.randrange(DEVICES):07d}"[:6]),
    "offline": lambda: Filters(health=Health.OFFLINE),
    "degraded": lambda: Filters(health=Health.DEGRADED),
}


def run() -> list[Row]:
    """Make the fleet and measure."""
    # By its path: libraries install a package `tests` of their own.
    simulator = Path(__file__).parent.parent / "tests/simulators/postgresql_cluster.py"
    cluster: Cluster = runpy.run_path(str(simulator))["Cluster"](*SETTINGS)
    cluster.start()
    try:
        return asyncio.run(_measured(cluster))
    finally:
        cluster.stop()


async def _measured(cluster: "Cluster") -> list[Row]:
    url = await cluster.create()
    began = time.perf_counter()
    await fill(url, devices=DEVICES, now_ms=unix_ms(datetime.now(UTC)))
    filled_s = time.perf_counter() - began
    database = Database(url)
    devices = Devices(database=database, connections=(), clock=utc_now)
    tenancy.enter(tenancy.DEFAULT)
    try:
        times = {kind: await _times(devices, make) for kind, make in KINDS.items()}
    finally:
        await database.close()
    everything = [each for taken in times.values() for each in taken]
    rows = [at_most("every query, p95", _p95(everything), "ms", GOAL_MS, HOW)]
    rows += [
        at_most(f"{kind}, p95", _p95(taken), "ms", GOAL_MS, HOW) for kind, taken in times.items()
    ]
    return [*rows, figure("filling the database", round(filled_s), "s", HOW)]


async def _times(devices: Devices, make: Callable[[], Filters]) -> list[float]:
    """Ask for first pages and for pages that follow them, in turns."""
    taken: list[float] = []
    after: str | None = None
    for number in range(_ASKED):
        filters = make()
        with _timed(taken):
            page = await devices.page(filters, after=after, limit=100)
        last = page[-1].device.id if page else None
        after = last if number % 3 == 0 else _somewhere() if number % 3 == 1 else None
    return taken


def _somewhere() -> str:
    return f"{_RANDOM.choice(['cam', _site()])}-{_RANDOM.randrange(DEVICES):07d}"


@contextmanager
def _timed(taken: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    taken.append((time.perf_counter() - began) * 1000)


def _p95(taken: list[float]) -> float:
    return round(sorted(taken)[int(0.95 * (len(taken) - 1))], 1)

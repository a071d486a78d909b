"""Device lists, selectors, searches and counts over a million devices in PostgreSQL.

Each kind is asked with other values and from other places in the list each time, in pages of 100;
the time is that of the service on the event loop of a server, with the tenant's condition and the
rows read, without HTTP. An answer may hold less than a page where few of very many are wanted
(`listing.py`): so the time until a page is full or the list ends is measured as well, over as many
answers as that takes.

``python -m benchmarks.device_queries PART...`` measures only the kinds whose name contains one of
the parts, for whoever works on them, and keeps no result.
"""

import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import asyncpg
import uvloop

from benchmarks import report
from benchmarks.peers.large_fleet import DEVICES, SITES, SMALL_TENANT, large_fleet
from benchmarks.report import Row, at_most, figure
from fleet_server import collector, tenancy
from fleet_server.database import Database
from fleet_server.devices.health import Health
from fleet_server.devices.selector import parse
from fleet_server.devices.service import Devices, Filters

HOW = (
    "make bench NAME=device_queries (1,000,000 devices, 10,000,000 values, pages of 100; "
    "warm cache: PostgreSQL holds all tables in memory, and each kind was asked twice before)"
)
GOAL_MS = 50.0

_NAME = "device_queries"
_ASKED = 60
"""Times that each kind is asked."""
_KIND_S = 5.0
"""After so long a kind is asked no more."""
_ASKED_BEFORE = 2
_WARMED = """
SELECT sum(pg_prewarm(oid)) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
"""
_PAGE = 100

_RANDOM = random.Random(7)  # noqa: S311 (drawn values of a benchmark)

Make = Callable[[], Filters]
T = TypeVar("T")


def _site() -> str:
    return f"site-{_RANDOM.randrange(SITES)}"


def _selected(text: str) -> Filters:
    return Filters(selectors=(parse(text),))


KINDS: dict[str, Make] = {
    "all": Filters,
    "site": lambda: _selected(f"site={_site()}"),
    "rare label": lambda: _selected("legacy"),
    "rare label of a site": lambda: _selected(f"site={_site()},legacy"),
    "two values of a fact": lambda: _selected("accelerator in (edgetpu,cuda)"),
    "number": lambda: _selected("ram_gib>=7"),
    "narrow number": lambda: _selected(f"rack={_RANDOM.randrange(400)},ram_gib<2"),
    "without a label": lambda: _selected("!legacy,accelerator!=cpu"),
    "two common values": lambda: _selected("machine=aarch64,accelerator=cuda"),
    "all four": lambda: _selected(
        f"site={_site()},accelerator in (edgetpu,cuda),!legacy,ram_gib>=2"
    ),
    "updated early (1 %)": lambda: _selected("runs.fashion_mnist=1.1.0"),
    "not on a version (1 %)": lambda: _selected("runs.fashion_mnist!=1.0.0"),
    "left behind (50 devices)": lambda: _selected("runs.fashion_mnist=0.9.0"),
    "nothing": lambda: _selected(f"site={_site()},accelerator=tpu9"),
    "search, 6 digits": lambda: Filters(search=f"{_RANDOM.randrange(DEVICES):07d}"[:6]),
    "search, a site": lambda: Filters(search=_site()),
    "search, 2 characters": lambda: Filters(search=f"{_RANDOM.randrange(100):02d}"),
    "search, nothing": lambda: Filters(search=f"none-{_RANDOM.randrange(100)}"),
    "search in a site": lambda: Filters(
        selectors=(parse(f"site={_site()}"),), search=f"{_RANDOM.randrange(1000):03d}"
    ),
    **{word.value: lambda word=word: Filters(health=word) for word in Health},  # type: ignore[misc]  # a lambda with a default
    "offline in a site": lambda: Filters(
        selectors=(parse(f"site={_site()}"),), health=Health.OFFLINE
    ),
}
HARD: dict[str, Make] = {
    "not on either of two versions (50 devices)": lambda: _selected(
        "runs.fashion_mnist notin (1.0.0,1.1.0)"
    ),
    "two common values that exclude each other": lambda: _selected("tier=canary,accelerator=cuda"),
    "search, 2 characters that are nowhere": lambda: Filters(search="zq"),
}
"""What no index answers: pages come short, and it takes several to see all."""


def run() -> list[Row]:
    """Make the fleet, if it is not there, and measure."""
    return uvloop.run(_measured(_rows))


async def _measured(measure: Callable[[Devices], Awaitable[list[Row]]]) -> list[Row]:
    async with large_fleet() as fleet:
        database = Database(fleet.url)
        now = datetime.fromtimestamp(fleet.now_ms / 1000, UTC)
        devices = Devices(database=database, connections=(), clock=lambda: now)
        await _warm(fleet.url)
        collector.settle()  # as a server does when it has started
        tenancy.enter(tenancy.DEFAULT)
        try:
            return await measure(devices)
        finally:
            await database.close()


async def _warm(url: str) -> None:
    connection = await asyncpg.connect(url, command_timeout=120)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        await connection.execute(_WARMED)
    finally:
        await connection.close()


async def _some(devices: Devices, parts: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for kind, make in {**KINDS, **HARD}.items():
        if any(part in kind for part in parts):
            answers, pages = await _listed(devices, make)
            rows += _of_times(f"list: {kind}", answers)
            rows += _of_times(f"list: {kind}, full pages", pages)
            rows += _of_times(f"count: {kind}", await _counted(devices, make))
    return rows


async def _rows(devices: Devices) -> list[Row]:
    rows: list[Row] = []
    for kind, make in KINDS.items():
        answers, pages = await _listed(devices, make)
        _add(rows, _of_times(f"list: {kind}", answers))
        if len(answers) > len(pages):
            _add(rows, _of_times(f"list: {kind}, full pages", pages))
    for kind, make in KINDS.items():
        _add(rows, _of_times(f"count: {kind}", await _counted(devices, make)))
    tenancy.enter(SMALL_TENANT)
    for kind in ("all", "site", "without a label", "search, a site", "offline"):
        answers, _ = await _listed(devices, KINDS[kind])
        _add(rows, _of_times(f"list for a tenant of 1,000: {kind}", answers))
    tenancy.enter(tenancy.DEFAULT)
    for kind, make in HARD.items():
        _add(rows, await _hard(devices, kind, make))
    return rows


def _add(rows: list[Row], found: list[Row]) -> None:
    """Keep what was measured, and say it, in case that it is not measured to the end."""
    rows += found
    report.save(_NAME, rows)
    print(*(f"{row.name}: {row.value:g} {row.unit}" for row in found), sep=", ", flush=True)


async def _listed(devices: Devices, make: Make) -> tuple[list[float], list[float]]:
    """Ask for first pages and for pages from elsewhere; return times of answers and of pages."""
    answers: list[float] = []
    pages: list[float] = []
    for _ in range(_ASKED_BEFORE):
        await devices.page(make(), after=_somewhere(), limit=_PAGE)
    until = time.perf_counter() + _KIND_S
    for number in range(_ASKED):
        if time.perf_counter() > until:
            break
        filters, after, found = make(), None if number % 3 == 0 else _somewhere(), 0
        began = time.perf_counter()
        while True:
            page = await _timed(answers, devices.page(filters, after=after, limit=_PAGE))
            found, after = found + len(page.devices), page.next_after
            if found >= _PAGE or after is None:
                break
        pages.append((time.perf_counter() - began) * 1000)
    return answers, pages


async def _counted(devices: Devices, make: Make) -> list[float]:
    taken: list[float] = []
    await devices.count(make())
    for _ in range(_ASKED // 3):
        await _timed(taken, devices.count(make()))
    return taken


async def _hard(devices: Devices, kind: str, make: Make) -> list[Row]:
    """Read the whole list once, and count."""
    answers: list[float] = []
    found, after, began = 0, None, time.perf_counter()
    while True:
        page = await _timed(answers, devices.page(make(), after=after, limit=_PAGE))
        found, after = found + len(page.devices), page.next_after
        if after is None or found >= 10 * _PAGE:
            break
    whole_ms = (time.perf_counter() - began) * 1000
    return [
        *_of_times(f"list: {kind}", answers),
        figure(f"list: {kind}, until {found} were found", round(whole_ms), "ms", HOW),
        figure(f"list: {kind}, answers for that", len(answers), "answers", HOW),
    ]


async def _timed(taken: list[float], asked: Awaitable[T]) -> T:
    began = time.perf_counter()
    answer = await asked
    taken.append((time.perf_counter() - began) * 1000)
    return answer


def _somewhere() -> str:
    return f"{_RANDOM.choice(['cam', _site()])}-{_RANDOM.randrange(DEVICES):07d}"


def _of_times(name: str, taken: list[float]) -> list[Row]:
    return [
        figure(f"{name}, p50", _quantile(taken, 0.5), "ms", HOW),
        at_most(f"{name}, p95", _quantile(taken, 0.95), "ms", GOAL_MS, HOW),
    ]


def _quantile(taken: list[float], share: float) -> float:
    return round(sorted(taken)[int(share * (len(taken) - 1))], 1)


if __name__ == "__main__":
    report.show("device_queries", uvloop.run(_measured(partial(_some, parts=sys.argv[1:]))))

"""Telemetry windows that a server process takes in a second: decoded, stored, acknowledged.

The contenders take turns over the same tables: batches as the server writes them, the same batches
row by row, and a transaction for each window. Two shapes of load: every device sends one window (a
fleet at work), and each sends many at once (devices that were away). Databases sync to the disk.
"""

import asyncio
import itertools
import random
import runpy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from sqlalchemy import insert

from benchmarks.measuring.environments import PROJECT
from benchmarks.peers.row_by_row_store import RowByRowStore
from benchmarks.report import Row, at_least, figure
from fleet_protocol import histogram, messages
from fleet_protocol.messages import ErrorKind, ModelWindow, SystemWindow, TelemetryWindow
from fleet_protocol.topics import Channel, Topic
from fleet_server import migrate
from fleet_server.clock import utc_now
from fleet_server.database import Database, sqlite_url
from fleet_server.devices.tables import Device
from fleet_server.telemetry.ingest import Ingest
from fleet_server.telemetry.store import Stored, TelemetryStore

if TYPE_CHECKING:
    from fleet_server.telemetry.uplink import Uplink
    from tests.simulators.postgresql_cluster import Cluster

GOAL_RATIO = 5.0
_HOW = (
    "make bench NAME=telemetry_ingest (2,000 devices, windows of one model with 300 calls and 10 "
    "classes; median of {rounds} turns; no broker: decoding, storing and acknowledging)"
)
_ROUNDS = 5
_DEVICES = 2000
_BACKLOG = 20
_IDLE = 100
_SYNCED = (
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "autovacuum=on",
    "shared_buffers=512MB",
    "max_wal_size=2GB",
)
_START_MS = 1_700_000_000_000
_RANDOM = random.Random(7)  # noqa: S311 (drawn values of a benchmark)
_LATENCIES = histogram.of_values([_RANDOM.lognormvariate(7, 0.4) for _ in range(300)])

Message = tuple[str, bytes]


class _SinglyStore(TelemetryStore):
    async def store(self, uplinks: "Sequence[Uplink]") -> Stored:
        stored = Stored()
        for uplink in uplinks:
            one = await super().store([uplink])
            stored.acks |= one.acks
        return stored


_BATCHES = "batches"
_CONTENDERS: dict[str, tuple[type[TelemetryStore], int]] = {
    _BATCHES: (TelemetryStore, 4000),
    "the same batches row by row": (RowByRowStore, 1000),
    "a transaction for each window": (_SinglyStore, 200),
}
"""Each with the messages of one turn."""


class _Acks:
    def __init__(self) -> None:
        self.came = asyncio.Event()

    def acknowledge(self, device_id: str, stream: str, sequence: int) -> None:
        del device_id, stream, sequence
        self.came.set()


class _Fleet:
    """Devices that send, each window once, in the order of its streams."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, str], Iterator[int]] = {}

    def at_work(self, stream: str, count: int) -> list[Message]:
        """Return one window of each device, again and again."""
        return [self._message(number % _DEVICES, stream) for number in range(count)]

    def back_again(self, stream: str, count: int) -> list[Message]:
        """Return many windows of each device in a row."""
        first = _RANDOM.randrange(_DEVICES)
        return [
            self._message((first + number // _BACKLOG) % _DEVICES, stream)
            for number in range(count)
        ]

    def _message(self, number: int, stream: str) -> Message:
        device_id = _device_id(number)
        sequence = next(self._next.setdefault((device_id, stream), itertools.count(1)))
        start_ms = _START_MS + 30_000 * sequence
        window = TelemetryWindow(
            stream=stream,
            sequence=sequence,
            covers_from=sequence,
            start_ms=start_ms,
            end_ms=start_ms + 29_999,
            models=[
                ModelWindow(
                    family="fashion_mnist",
                    version="1.0.0",
                    variant="int8-static",
                    requests=300,
                    errors={ErrorKind.BACKEND: 1},
                    latency_us=_LATENCIES,
                    classes={f"class {label}": 30 for label in range(10)},
                )
            ],
            system=SystemWindow(cpu_percent=12.5, temperature_celsius=51.2),
        )
        return str(Topic(device_id, Channel.TELEMETRY)), messages.encode(window)


def run() -> list[Row]:
    """Measure both databases."""
    return asyncio.run(_measured())


async def _measured() -> list[Row]:
    rows: list[Row] = []
    kind: type[Cluster] = runpy.run_path(
        str(PROJECT / "tests/simulators/postgresql_cluster.py")  # libraries install `tests` too
    )["Cluster"]
    cluster = kind(*_SYNCED).start()
    try:
        rows += await _of_database("PostgreSQL", await cluster.create(), goal=GOAL_RATIO)
    finally:
        cluster.stop()
    with _sqlite_file() as path:
        await migrate.upgrade(sqlite_url(path))
        rows += await _of_database("SQLite", sqlite_url(path), goal=None)
    return rows


async def _of_database(name: str, url: str, *, goal: float | None) -> list[Row]:
    database = Database(url)
    try:
        await _enrol(database)
        fleet, rows = _Fleet(), []
        for shape, load in (
            ("every device sends one", fleet.at_work),
            (f"{_BACKLOG} of each device at once", fleet.back_again),
        ):
            rows += _of_rates(f"{name}, {shape}", await _rates(database, load), goal=goal)
        rows += await _idle(name, database, fleet)
        return rows
    finally:
        await database.close()


async def _rates(
    database: Database, load: Callable[[str, int], list[Message]]
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in _CONTENDERS}
    order = list(_CONTENDERS)
    for turn in range(_ROUNDS + 1):
        _RANDOM.shuffle(order)
        for name in order:
            store, count = _CONTENDERS[name]
            sent = load(f"telemetry-{list(_CONTENDERS).index(name):016x}", count)
            rate = await _rate(store(database=database, clock=utc_now), sent)
            if turn:  # the first one prepares statements
                rates[name].append(rate)
    return rates


async def _rate(store: TelemetryStore, sent: list[Message]) -> float:
    ingest = Ingest(store, monotonic=time.monotonic)
    began = time.perf_counter()
    for topic, payload in sent:
        ingest.receive(topic, payload, False)  # noqa: FBT003 (the signature of others)
    ingest.finish()
    await ingest.run(_Acks())
    return len(sent) / (time.perf_counter() - began)


def _of_rates(name: str, rates: dict[str, list[float]], *, goal: float | None) -> list[Row]:
    how = _HOW.format(rounds=_ROUNDS)
    rows = [
        figure(f"{name}: {contender}", round(median(taken)), "windows/s", how)
        for contender, taken in rates.items()
    ]
    for contender in list(_CONTENDERS)[1:]:
        ratio = round(median(rates[_BATCHES]) / median(rates[contender]), 1)
        what = f"{name}: batches against {contender}"
        rows.append(
            figure(what, ratio, "x", how) if goal is None else at_least(what, ratio, "x", goal, how)
        )
    return rows


async def _idle(name: str, database: Database, fleet: _Fleet) -> list[Row]:
    """Send one window at a time to a server that has nothing else to do."""
    ingest = Ingest(TelemetryStore(database=database, clock=utc_now), monotonic=time.monotonic)
    acks, taken = _Acks(), []
    running = asyncio.create_task(ingest.run(acks))
    for topic, payload in fleet.at_work("telemetry-ffffffffffffffff", _IDLE):
        acks.came.clear()
        began = time.perf_counter()
        ingest.receive(topic, payload, False)  # noqa: FBT003 (the signature of others)
        await acks.came.wait()
        taken.append((time.perf_counter() - began) * 1000)
    ingest.finish()
    await running
    how = _HOW.format(rounds=_IDLE)
    what = f"{name}: one window of an idle server, until it is acknowledged"
    return [figure(what, round(median(taken), 1), "ms", how)]


async def _enrol(database: Database) -> None:
    devices = [
        {
            "id": _device_id(number),
            "tenant": "default",
            "public_key_pem": "k" * 180,
            "public_key_sha256": f"{number:064x}",
            "certificate_pem": "c" * 800,
            "certificate_serial": str(number),
            "certificate_expires_ms": 2**45,
            "enrolled_ms": _START_MS,
            "online": True,
            "reported": "r" * 900,
            "runtime_up": True,
        }
        for number in range(_DEVICES)
    ]
    async with database.writing() as session:
        await session.execute(insert(Device), devices)


def _device_id(number: int) -> str:
    return f"cam-{number:05d}"


@contextmanager
def _sqlite_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="skerry-ingest-") as folder:
        yield Path(folder) / "fleet.db"

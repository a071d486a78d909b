"""Telemetry windows: every count that the runtime made reaches exactly one of them.

A window is the difference between the counter files and the baselines in ``state.db``; window and
new baselines are one transaction, so a kill on either side of it neither loses nor doubles a count.
A final file is deleted only after the transaction that drained it, its baseline one window later,
so a kill in between finds a file whose difference is zero. An idle device sends its windows too:
they show the machine, and their absence shows that something is wrong.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from edge_agent import store
from edge_agent.control import facts
from edge_agent.control.clock import Clock
from edge_agent.control.coarser import summed_models
from edge_agent.control.counter_files import CounterFiles, Reading
from edge_agent.control.database import Database
from edge_agent.control.outbox import Outbox, WindowDraft
from edge_agent.counters import CountersError, Counts
from edge_agent.store import StoreError
from fleet_protocol.histogram import Histogram
from fleet_protocol.messages import ErrorKind, ModelWindow, SystemWindow

logger = logging.getLogger(__name__)

_LAST_END = "telemetry_end_ms"


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What of a file's counts has been put into windows already."""

    requests: int = 0
    errors: dict[ErrorKind, int] = {}
    latency_us: Histogram = Histogram()
    classes: dict[str, int] = {}


def baseline_of(counts: Counts) -> Baseline:
    """Return the baseline after all counts of a file went into a window."""
    return Baseline(
        requests=counts.requests,
        errors=counts.errors,
        latency_us=counts.latency_us,
        classes=counts.classes,
    )


def difference(counts: Counts, baseline: Baseline) -> ModelWindow | None:
    """Return what happened since the baseline, or None if nothing did."""
    buckets = _minus(counts.latency_us.buckets, baseline.latency_us.buckets)
    requests = max(0, counts.requests - baseline.requests)
    errors = _minus(counts.errors, baseline.errors)
    classes = _minus(counts.classes, baseline.classes)
    # The runtime counts word by word, so any of these may be there before the others.
    if not (requests or buckets or errors or classes):
        return None
    total = max(0.0, counts.latency_us.total - baseline.latency_us.total)
    return ModelWindow(
        family=counts.label.family,
        version=counts.label.version,
        variant=counts.label.variant,
        requests=requests,
        errors=errors,
        latency_us=Histogram(buckets=buckets, total=total),
        classes=classes,
    )


def write_window(
    connection: sqlite3.Connection,
    *,
    outbox: Outbox,
    reading: Reading,
    now_ms: int,
    system: SystemWindow,
) -> None:
    """Write window and new baselines; the caller's transaction makes them one."""
    baselines = {
        name: msgspec.json.decode(raw, type=Baseline)
        for name, raw in connection.execute("SELECT file, counts FROM baselines")
    }
    changes = [
        difference(file.counts, baselines.get(file.path.name, Baseline())) for file in reading.files
    ]
    # The window begins where the last one ended, also when that was before a restart.
    start_ms = min(now_ms, int(facts.get(connection, _LAST_END) or now_ms))
    outbox.append_window(
        connection,
        WindowDraft(
            start_ms=start_ms,
            end_ms=now_ms,
            models=summed_models(change for change in changes if change is not None),
            system=system,
        ),
    )
    facts.put(connection, _LAST_END, str(now_ms))
    _keep_baselines(connection, reading, vanished=baselines.keys() - reading.present)


def take_as_baselines(connection: sqlite3.Connection, reading: Reading) -> None:
    """Take what the files say as told already (in the caller's transaction)."""
    _keep_baselines(connection, reading, vanished=())


def _keep_baselines(
    connection: sqlite3.Connection, reading: Reading, *, vanished: Iterable[str]
) -> None:
    # A vanished file was final and drained, and its name never comes back.
    connection.executemany(
        "DELETE FROM baselines WHERE file = ?", [(name,) for name in sorted(vanished)]
    )
    connection.executemany(
        "INSERT INTO baselines VALUES (?, ?) "
        "ON CONFLICT (file) DO UPDATE SET counts = excluded.counts",
        [(file.path.name, msgspec.json.encode(baseline_of(file.counts))) for file in reading.files],
    )


class Telemetry:
    """Closes a window at a fixed interval, and one at the start for what was left."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        database: Database,
        outbox: Outbox,
        files: CounterFiles,
        system: Callable[[], SystemWindow],
        clock: Clock,
        window_s: float,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._files = files
        self._system = system
        self._clock = clock
        self._window_s = window_s

    async def run(self) -> None:
        """Close windows until cancelled."""
        while True:
            try:
                await self.close_window()
            except (CountersError, StoreError) as error:
                logger.error("telemetry_not_stored", extra={"reason": str(error)})  # noqa: TRY400 (a full disk needs no traceback)
            await asyncio.sleep(self._window_s)

    async def close_window(self) -> None:
        """Write the window that ends now and delete the files that it drained for good.

        Raises:
            CountersError, StoreError: the disk refused; the next window takes the counts.
        """
        reading = await asyncio.to_thread(self._files.read)
        system = await asyncio.to_thread(self._system)
        await self._database.transact(
            partial(
                write_window,
                outbox=self._outbox,
                reading=reading,
                now_ms=self._clock.now_ms(),
                system=system,
            )
        )
        await asyncio.to_thread(_delete_final, reading)


def _delete_final(reading: Reading) -> None:
    for file in reading.files:
        if file.final:
            store.remove_file(file.path)
            logger.info("counters_drained", extra={"file": file.path.name})


_Key = TypeVar("_Key")


def _minus(counts: Mapping[_Key, int], baseline: Mapping[_Key, int]) -> dict[_Key, int]:
    return {
        key: count - baseline.get(key, 0)
        for key, count in counts.items()
        if count > baseline.get(key, 0)
    }

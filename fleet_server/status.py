"""`skerry server status`: what the server stores, whether it runs or not."""

import os
from dataclasses import dataclass
from pathlib import Path

from fleet_server import settings
from fleet_server.data_dir import DataDir
from fleet_server.local_database import opened
from fleet_server.monitoring import storage
from fleet_server.monitoring.storage import Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is stored, and for how many days; 0 for as long as there is room."""

    stored: Stored
    telemetry_days: int
    event_days: int


async def read(root: Path) -> Status:
    """Read it.

    Raises:
        SetupError: the data directory or its database cannot be used.
        UnavailableError: the database failed.
    """
    data = DataDir(root)
    data.check()
    config = settings.load(data.settings_file, os.environ)
    async with opened(root) as database:
        stored = await storage.read(database)
    return Status(stored=stored, telemetry_days=config.telemetry_days, event_days=config.event_days)


def lines(status: Status, *, now_ms: int) -> list[str]:
    """Return what a person reads."""
    said = [f"database       {status.stored.database_bytes / 2**20:,.1f} MiB"]
    for name, rows in status.stored.telemetry.items():
        age = "" if rows.oldest_ms is None else f", the oldest {_days(now_ms - rows.oldest_ms)}"
        said.append(f"{name:<14} about {rows.number:,}{age}")
    for name, days in (("windows", status.telemetry_days), ("events", status.event_days)):
        kept = f"kept for {days} days" if days else "kept until the disk is full"
        said.append(f"{name:<14} {kept}")
    return said


def _days(age_ms: int) -> str:
    return f"{max(0, age_ms) / 86_400_000:.1f} days old"

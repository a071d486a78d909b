"""What is old is forgotten, in batches, and nothing else."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select

from fleet_server import tenancy
from fleet_server.audit import trail
from fleet_server.audit.tables import AuditEntry
from fleet_server.clock import unix_ms
from fleet_server.database import Base, Database
from fleet_server.devices.tables import Device
from fleet_server.monitoring import storage
from fleet_server.telemetry import retention
from fleet_server.telemetry.retention import Kept, Retention
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Window
from tests.unit.fleet_server.conftest import FakeClock

OLD, YOUNG = 7, 4
_BLANK = dict.fromkeys(
    ("public_key_pem", "public_key_sha256", "certificate_pem", "certificate_serial"), ""
)


@pytest.fixture
async def filled(database: Database, clock: FakeClock) -> Database:
    """Windows and events, some received 40 days ago; the devices' own clocks say something else."""
    now_ms = unix_ms(clock.now)
    async with database.writing() as session:
        session.add(
            Device(id="cam", certificate_expires_ms=0, enrolled_ms=0, online=False, **_BLANK)
        )
        await session.flush()
        await trail.record(session, "device.enroll", "cam")
        for number in range(OLD + YOUNG):
            received_ms = now_ms - (40 * 86_400_000 if number < OLD else 0)
            named = {"device_id": "cam", "stream": "s", "sequence": number}
            window = Window(
                **named,
                covers_from=number,
                start_ms=2 * now_ms if number % 2 else 0,
                end_ms=0,
                received_ms=received_ms,
                system="{}",
            )
            session.add(window)
            await session.flush()
            counts = {"family": "a", "version": "1", "variant": "v", "requests": 1, "counts": "{}"}
            row = {"window_id": window.id, "device_id": "cam", "start_ms": 0, **counts}
            await session.execute(insert(ModelCounts), [row, row])
            session.add(DeviceEvent(**named, at_ms=0, received_ms=received_ms, kind="k", detail=""))
    return database


async def rows(database: Database, *tables: type[Base]) -> list[int]:
    with tenancy.everything():
        async with database.reading() as session:
            return [
                await session.scalar(select(func.count()).select_from(table)) or 0
                for table in tables
            ]


def made(database: Database, clock: FakeClock, days: int | None, events: int | None) -> Retention:
    kept = Kept(*(None if each is None else timedelta(days=each) for each in (days, events)))
    return Retention(database=database, kept=kept, clock=clock)


@pytest.mark.parametrize(
    ("days", "left"),
    [
        ((30, 30), [YOUNG, 2 * YOUNG, YOUNG]),
        ((30, None), [YOUNG, 2 * YOUNG, OLD + YOUNG]),
        ((None, 30), [OLD + YOUNG, 2 * (OLD + YOUNG), YOUNG]),
        ((50, 41), [OLD + YOUNG, 2 * (OLD + YOUNG), OLD + YOUNG]),
    ],
)
async def test_what_was_received_long_ago_goes(
    filled: Database,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    days: tuple[int | None, int | None],
    left: list[int],
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    forgetting = made(filled, clock, *days)
    assert await forgetting.once() == sum(OLD + YOUNG - each for each in (left[0], left[2]))
    assert await rows(filled, Window, ModelCounts, DeviceEvent) == left
    assert await rows(filled, AuditEntry) == [1]
    assert await forgetting.once() == 0


async def test_servers_that_forget_at_once_forget_each_row_once(
    filled: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    forgotten = await asyncio.gather(*(made(filled, clock, 30, 30).once() for _ in range(3)))
    left = await made(filled, clock, 30, 30).once()
    assert sum(forgotten) + left == 2 * OLD
    assert await rows(filled, Window, ModelCounts, DeviceEvent) == [YOUNG, 2 * YOUNG, YOUNG]


async def test_what_is_stored_can_be_seen(filled: Database, clock: FakeClock) -> None:
    before = await storage.read(filled)
    await made(filled, clock, 30, 30).once()
    after = await storage.read(filled)
    assert before.database_bytes > 0
    assert [before.telemetry[kind].number for kind in ("windows", "events")] == [OLD + YOUNG] * 2
    assert [after.telemetry[kind].number for kind in ("windows", "events")] == [YOUNG] * 2
    assert after.telemetry["windows"].oldest_ms == unix_ms(clock.now)
    assert after.telemetry["model_windows"].number == 2 * YOUNG

"""Storing: each message once, whatever comes twice, out of order, or before a crash."""

import random

import msgspec
import pytest
from sqlalchemy import delete

from fleet_protocol import histogram, messages
from fleet_protocol.messages import (
    Capabilities,
    ErrorKind,
    Presence,
    Reported,
)
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.devices.service import Devices
from fleet_server.errors import NotFoundError, RefusedError
from fleet_server.telemetry.service import Period, Telemetry
from fleet_server.telemetry.store import TelemetryStore
from fleet_server.telemetry.streams import MAX_STREAMS
from fleet_server.telemetry.tables import Stream
from tests.unit.fleet_server.assigning import add_devices
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.telemetry_messages import STREAM, event, from_device, window
from tests.unit.fleet_server.test_enrollment import NoConnections

EVER = Period(0, 31 * 86_400_000)


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> TelemetryStore:
    await add_devices(database, "cam-1", "cam-2")
    return TelemetryStore(database=database, clock=clock)


@pytest.fixture
def telemetry(database: Database) -> Telemetry:
    return Telemetry(database=database)


async def test_a_batch_with_everything(
    store: TelemetryStore, telemetry: Telemetry, database: Database, clock: FakeClock
) -> None:
    reported = Reported(
        at_ms=1,
        agent_version="1",
        assignment_version=3,
        runtime_up=True,
        capabilities=Capabilities(machine="aarch64", cpu_count=4),
    )
    uplinks = [
        from_device(Presence(online=True)),
        from_device(reported),
        from_device(window(1)),
        from_device(window(2)),
        from_device(event(1, "a\x00b")),
    ]
    stored = await store.store(uplinks)
    assert stored.acks == {("cam-1", STREAM): 2, ("cam-1", "event-0123456789abcdef"): 1}
    events = await telemetry.events("cam-1", kind=None, after=None, limit=9)
    assert [row.detail for row in events] == ["ab"]
    devices = Devices(database=database, connections=[NoConnections()], clock=clock)
    device = (await devices.get("cam-1")).device
    assert (device.online, device.last_seen_ms) == (True, unix_ms(clock()))
    assert messages.decode((device.reported or "").encode(), Reported) == reported


async def test_what_the_database_refuses_holds_up_no_other_device(
    store: TelemetryStore, database_url: str
) -> None:
    refused = msgspec.structs.replace(event(1), family="a\x00b")  # which no device could have sent
    stored = await store.store([from_device(refused), from_device(window(1), "cam-2")])
    assert stored.acks[("cam-2", STREAM)] == 1
    assert stored.counts["not_storable"] == int(database_url.startswith("postgresql"))


async def test_nothing_counts_twice(store: TelemetryStore, telemetry: Telemetry) -> None:
    for _ in range(3):
        await store.store([from_device(window(number)) for number in (1, 2, 3, 3)])
    totals = await telemetry.totals(EVER)
    (release,) = totals.summary.releases
    assert (totals.windows, totals.covered, release.requests) == (3, 3, 30)
    assert release.errors[ErrorKind.BACKEND] == 3
    assert release.latency_us.count == 30


async def test_shuffled_and_repeated_windows_all_arrive_once(
    store: TelemetryStore, telemetry: Telemetry
) -> None:
    order = [*range(1, 41), *range(1, 41)]
    random.Random(7).shuffle(order)  # noqa: S311 (repeatable, not secret)
    acked: dict[tuple[str, str], int] = {}
    for start in range(0, len(order), 7):
        batch = [from_device(window(number)) for number in order[start : start + 7]]
        acked = (await store.store(batch)).acks
    assert acked == {("cam-1", STREAM): 40}
    assert (await telemetry.totals(EVER)).windows == 40


async def test_a_gap_holds_the_acknowledgement_back(store: TelemetryStore) -> None:
    key = ("cam-1", STREAM)
    assert (await store.store([from_device(window(1))])).acks[key] == 1
    assert (await store.store([from_device(window(3))])).acks[key] == 1
    assert (await store.store([from_device(window(4))])).acks[key] == 1
    assert (await store.store([from_device(window(2))])).acks[key] == 4


async def test_merged_windows(store: TelemetryStore, telemetry: Telemetry) -> None:
    stored = await store.store([from_device(window(5, covers_from=1)), from_device(window(3))])
    assert stored.counts["duplicate"] == 1
    stored = await store.store([from_device(window(7, covers_from=4))])
    assert stored.counts["overlap"] == 1
    assert stored.acks == {("cam-1", STREAM): 7}
    totals = await telemetry.totals(EVER)
    assert (totals.windows, totals.covered) == (1, 5)


async def test_streams_of_two_devices_are_apart(
    store: TelemetryStore, telemetry: Telemetry
) -> None:
    await store.store([from_device(window(1)), from_device(window(1), "cam-2")])
    assert (await telemetry.totals(EVER)).windows == 2
    assert (await telemetry.totals(EVER, device_id="cam-2")).windows == 1


async def test_unknown_devices_are_dropped_and_counted(store: TelemetryStore) -> None:
    stored = await store.store([from_device(window(1), "cam-9"), from_device(window(1))])
    assert stored.counts["unknown_device"] == 1
    assert stored.acks == {("cam-1", STREAM): 1}


async def test_retained_messages_do_not_show_life(
    store: TelemetryStore, database: Database, clock: FakeClock
) -> None:
    await store.store([from_device(Presence(online=False), retained=True)])
    devices = Devices(database=database, connections=[NoConnections()], clock=clock)
    assert (await devices.get("cam-1")).device.last_seen_ms is None


async def test_a_window_of_a_forgotten_stream_is_acknowledged_and_not_counted_again(
    store: TelemetryStore, telemetry: Telemetry, database: Database
) -> None:
    await store.store([from_device(window(1))])
    async with database.writing() as session:
        await session.execute(delete(Stream).where(Stream.device_id == "cam-1"))
    stored = await store.store([from_device(window(1)), from_device(window(1), "cam-2")])
    assert (await telemetry.totals(EVER)).windows == 2
    assert stored.acks == {("cam-1", STREAM): 1, ("cam-2", STREAM): 1}


async def test_a_gap_that_nobody_can_fill_is_given_up(
    store: TelemetryStore, telemetry: Telemetry, clock: FakeClock
) -> None:
    key = ("cam-1", STREAM)
    acked = []
    for _ in range(20):
        stored = await store.store([from_device(window(number)) for number in (301, 302)])
        acked.append(stored.acks[key])
        clock.advance(minutes=1)
    assert acked[0] == acked[10] == 0
    assert acked[-1] == 302
    assert (await telemetry.totals(EVER)).windows == 2


async def test_a_gap_of_a_device_that_was_away_is_not_given_up(
    store: TelemetryStore, clock: FakeClock
) -> None:
    for _ in range(10):
        stored = await store.store([from_device(window(3))])
        clock.advance(hours=1)
    assert stored.acks == {("cam-1", STREAM): 0}
    stored = await store.store([from_device(window(number)) for number in (1, 2, 3)])
    assert stored.acks == {("cam-1", STREAM): 3}


async def test_the_oldest_streams_of_a_device_go(
    store: TelemetryStore, telemetry: Telemetry, clock: FakeClock
) -> None:
    for number in range(MAX_STREAMS + 5):
        clock.advance(seconds=1)
        await store.store([from_device(window(1, stream=f"telemetry-{number:016x}"))])
    streams = [name for name, _ in await telemetry.streams("cam-1")]
    assert len(streams) == MAX_STREAMS
    assert f"telemetry-{0:016x}" not in streams


async def test_quantiles_come_from_merged_histograms(
    store: TelemetryStore, telemetry: Telemetry
) -> None:
    await store.store([from_device(window(number)) for number in range(1, 101)])
    (release,) = (await telemetry.totals(EVER)).summary.releases
    p99 = release.latency_us.quantile(0.99)
    assert p99 == pytest.approx(9900, rel=histogram.RELATIVE_ERROR)


async def test_periods_and_families(store: TelemetryStore, telemetry: Telemetry) -> None:
    await store.store(
        [from_device(window(number, version=f"{number}.0.0")) for number in (1, 2, 3)]
    )
    some = (await telemetry.totals(Period(2000, 3000))).summary.releases
    assert [release.version for release in some] == ["2.0.0"]
    assert (await telemetry.totals(EVER, family="b")).summary.releases == []
    with pytest.raises(RefusedError):
        await telemetry.totals(Period(5, 4))
    with pytest.raises(RefusedError):
        await telemetry.totals(Period(0, 2**50))
    with pytest.raises(NotFoundError):
        await telemetry.totals(EVER, device_id="cam-9")


async def test_pages_of_windows(store: TelemetryStore, telemetry: Telemetry) -> None:
    await store.store([from_device(window(number)) for number in range(1, 6)])
    first = await telemetry.windows("cam-1", after=0, limit=3)
    rest = await telemetry.windows("cam-1", after=first[-1].window.id, limit=3)
    assert [row.window.sequence for row in (*first, *rest)] == [1, 2, 3, 4, 5]
    assert all(len(row.models) == 1 for row in first)


async def test_one_device_with_absurd_numbers_does_not_take_the_sums_from_all(
    store: TelemetryStore, telemetry: Telemetry
) -> None:
    absurd = msgspec.structs.replace(
        window(1, stream="telemetry-" + "a" * 16), sequence=2**63 - 1, covers_from=1
    )
    (model,) = absurd.models
    huge = msgspec.structs.replace(model, requests=2**63 - 1)
    others = [
        msgspec.structs.replace(
            absurd, stream="telemetry-" + letter * 16, models=[huge] if letter == "c" else []
        )
        for letter in "bc"
    ]
    await store.store([from_device(content) for content in (absurd, *others)])
    await store.store([from_device(window(1), "cam-2")])
    totals = await telemetry.totals(EVER)
    assert (totals.windows, totals.covered) == (4, 4)
    assert [release.requests for release in totals.summary.releases] == [20]

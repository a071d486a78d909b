"""However messages are put into batches, and by however many servers, the same is stored."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from itertools import count, pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from fleet_protocol.messages import Presence, TelemetryWindow
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.telemetry.store import TelemetryStore
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Stream, Window
from fleet_server.telemetry.uplink import Content, Uplink
from tests.unit.fleet_server.assigning import add_devices
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.telemetry_messages import STREAM, event, from_device, window

_FLEETS = count()


def _contents() -> st.SearchStrategy[Content]:
    """Windows with gaps, twice, merged, and overlapping; events; and what is said of presence."""
    spans = st.tuples(st.integers(1, 9), st.integers(0, 2))
    windows = spans.map(lambda span: window(span[0] + span[1], covers_from=span[0]))
    return st.one_of(
        windows,
        windows.map(lambda one: msgspec.structs.replace(one, stream=STREAM[:-1] + "0")),
        st.integers(1, 6).map(event),
        st.booleans().map(lambda online: Presence(online=online)),
    )


_SENT = st.lists(st.tuples(st.sampled_from(["a", "b", "gone"]), _contents()), max_size=25)


def _split(sent: Sequence[Uplink], cuts: Sequence[int]) -> Iterator[Sequence[Uplink]]:
    edges = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    for first, last in pairwise(edges):
        if last > first:
            yield sent[first:last]


def _interleaved(sent: Sequence[Uplink], draws: random.Random) -> list[Uplink]:
    """Shuffle messages, but leave those of one stream of one device in their order."""

    def stream_of(uplink: Uplink) -> tuple[str, str]:
        return uplink.device_id, getattr(uplink.content, "stream", "")

    keys = [stream_of(uplink) for uplink in sent]
    draws.shuffle(keys)
    queues = {key: iter([one for one in sent if stream_of(one) == key]) for key in keys}
    return [next(queues[key]) for key in keys]


async def _stored(database: Database, fleet: str) -> list[object]:
    """Return everything that is stored of a fleet's devices, without generated keys."""
    async with database.reading() as session:
        windows = await session.execute(
            select(Window, ModelCounts)
            .outerjoin(ModelCounts, ModelCounts.window_id == Window.id)
            .where(Window.device_id.startswith(fleet))
        )
        events = await session.scalars(
            select(DeviceEvent).where(DeviceEvent.device_id.startswith(fleet))
        )
        streams = await session.scalars(select(Stream).where(Stream.device_id.startswith(fleet)))
        devices = await session.scalars(select(Device).where(Device.id.startswith(fleet)))
        kinds = [
            sorted(
                (row.device_id[len(fleet) :], row.stream, row.sequence, row.covers_from, row.system)
                + ((of.device_id[len(fleet) :], of.start_ms, of.counts) if of else ())
                for row, of in windows
            ),
            sorted((row.device_id[len(fleet) :], row.sequence, row.detail) for row in events),
            sorted(
                (row.device_id[len(fleet) :], row.stream, row.acked, row.ahead) for row in streams
            ),
            sorted((row.id[len(fleet) :], row.online, row.last_seen_ms) for row in devices),
        ]
        return list(kinds)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_SENT, st.lists(st.integers(0, 100), max_size=4), st.randoms(use_true_random=False))
async def test_batches_of_any_size_and_order_store_what_single_messages_do(
    database: Database,
    clock: FakeClock,
    sent: list[tuple[str, Content]],
    cuts: list[int],
    draws: random.Random,
) -> None:
    store = TelemetryStore(database=database, clock=clock)
    found, acked = [], []
    for batched in (False, True):
        fleet = f"f{next(_FLEETS)}-"
        await add_devices(database, f"{fleet}a", f"{fleet}b")
        uplinks = [from_device(content, fleet + device) for device, content in sent]
        batches = (
            _split(_interleaved(uplinks, draws), cuts) if batched else ([one] for one in uplinks)
        )
        acks: dict[tuple[str, str], int] = {}
        for batch in batches:
            acks |= (await store.store(batch)).acks
        found.append(await _stored(database, fleet))
        acked.append({(device[len(fleet) :], stream): n for (device, stream), n in acks.items()})
    assert found[0] == found[1]
    assert acked[0] == acked[1]


async def test_servers_that_hear_the_same_devices_store_each_window_once(
    database: Database, database_url: str, clock: FakeClock
) -> None:
    names = [f"cam-{number}" for number in range(8)]
    await add_devices(database, *names)
    other = Database(database_url)
    draws = random.Random(3)  # noqa: S311 (repeatable, not secret)

    async def serve(opened: Database, seed: int) -> None:
        sent = [from_device(window(number), name) for number in range(1, 26) for name in names]
        random.Random(seed).shuffle(sent)  # noqa: S311 (repeatable, not secret)
        store = TelemetryStore(database=opened, clock=clock)
        for batch in _split(sent, [draws.randrange(200) for _ in range(9)]):
            await store.store(batch)

    try:
        await asyncio.gather(serve(database, 1), serve(other, 2), serve(other, 3))
    finally:
        await other.close()
    async with database.reading() as session:
        streams = {row.device_id: row for row in await session.scalars(select(Stream))}
        windows = [(row.device_id, row.sequence) for row in await session.scalars(select(Window))]
        models = list(await session.scalars(select(ModelCounts.window_id)))
    assert {(streams[name].acked, streams[name].ahead) for name in names} == {(25, "[]")}
    assert sorted(windows) == sorted((name, number) for name in names for number in range(1, 26))
    assert len(set(models)) == len(models) == len(windows)


@pytest.mark.parametrize("refused", [{0}, {3, 7}, {4, 5}])
async def test_each_refused_message_is_left_out_of_its_batch_alone(
    database: Database, database_url: str, clock: FakeClock, refused: set[int]
) -> None:
    names = [f"cam-{number}" for number in range(9)]
    await add_devices(database, *names)
    refusable = TelemetryWindow(
        stream="a\x00b",
        sequence=1,
        covers_from=1,
        start_ms=1,
        end_ms=2,  # no device could send it
    )
    sent = [
        from_device(refusable if number in refused else window(1), name)
        for number, name in enumerate(names)
    ]
    stored = await TelemetryStore(database=database, clock=clock).store(sent)
    taken = {name for number, name in enumerate(names) if number not in refused}
    assert {device for (device, stream) in stored.acks if stream == STREAM} == taken
    if database_url.startswith("postgresql"):
        assert stored.counts["not_storable"] == len(refused)
        assert stored.counts["fresh"] == len(taken)

"""The outbox: bounds, merging, and exactly-once against every interleaving."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent import store
from edge_agent.control.outbox import EventDraft, Kind, Message, Outbox, WindowDraft
from fleet_protocol.histogram import Histogram
from fleet_protocol.messages import (
    Ack,
    ErrorKind,
    Event,
    EventKind,
    ModelWindow,
    SystemWindow,
    TelemetryWindow,
    decode,
)
from tests.simulators.telemetry_server import TelemetryServer


def window(requests: int = 1, *, version: str = "1.0.0", at_ms: int = 0) -> WindowDraft:
    model = ModelWindow(
        family="animals",
        version=version,
        variant="fp32",
        requests=requests,
        errors={ErrorKind.BACKEND: 1},
        latency_us=Histogram(buckets={10: requests}, total=10.0 * requests),
        classes={"cat": requests},
    )
    return WindowDraft(start_ms=at_ms, end_ms=at_ms + 10, models=[model], system=SystemWindow())


def event(detail: str = "x") -> EventDraft:
    return EventDraft(at_ms=1, kind=EventKind.UPDATE_STATE, detail=detail)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = store.open_database(tmp_path / "state.db")
    yield connection
    connection.close()


def windows_in(connection: sqlite3.Connection) -> list[TelemetryWindow]:
    rows = connection.execute(
        "SELECT payload FROM outbox WHERE kind = 'telemetry' ORDER BY position"
    )
    return [decode(payload, TelemetryWindow) for (payload,) in rows]


def events_in(connection: sqlite3.Connection) -> list[Event]:
    rows = connection.execute("SELECT payload FROM outbox WHERE kind = 'event' ORDER BY position")
    return [decode(payload, Event) for (payload,) in rows]


def test_streams_are_numbered_without_gaps_and_never_again(connection: sqlite3.Connection) -> None:
    outbox = Outbox(max_messages=100)
    outbox.append_window(connection, window())
    outbox.append_event(connection, event())
    outbox.append_window(connection, window())
    taken = outbox.take(connection)
    assert [(m.kind, m.sequence) for m in taken] == [
        (Kind.TELEMETRY, 1),
        (Kind.EVENT, 1),
        (Kind.TELEMETRY, 2),
    ]
    assert outbox.acknowledge(connection, Ack(stream=taken[0].stream, sequence=2)) == 2
    outbox.append_window(connection, window())
    assert windows_in(connection)[0].sequence == 3
    assert outbox.depth(connection) == {Kind.TELEMETRY: 1, Kind.EVENT: 1}


def test_a_sent_message_stays_byte_for_byte_until_it_is_acknowledged(
    connection: sqlite3.Connection,
) -> None:
    outbox = Outbox(max_messages=16)
    outbox.append_window(connection, window())
    (sent,) = outbox.take(connection)
    for _ in range(100):
        outbox.append_window(connection, window())
    assert sent in outbox.take(connection)


def test_an_acknowledgement_of_what_was_never_sent_deletes_nothing(
    connection: sqlite3.Connection,
) -> None:
    outbox = Outbox(max_messages=100)
    outbox.append_window(connection, window())
    stream = windows_in(connection)[0].stream
    assert outbox.acknowledge(connection, Ack(stream=stream, sequence=10**6)) == 0


@pytest.mark.parametrize("stream", ["telemetry-0123456789abcdef", "event-0123456789abcdef"])
def test_an_acknowledgement_of_another_stream_deletes_nothing(
    connection: sqlite3.Connection, stream: str
) -> None:
    outbox = Outbox(max_messages=100)
    outbox.append_window(connection, window())
    outbox.take(connection)
    assert outbox.acknowledge(connection, Ack(stream=stream, sequence=5)) == 0


def test_no_more_than_the_window_is_in_flight(connection: sqlite3.Connection) -> None:
    outbox = Outbox(max_messages=16)
    for _ in range(16):
        outbox.append_window(connection, window())
    assert len(outbox.take(connection)) == outbox.window == 4
    assert len(outbox.take(connection)) == 4


def test_a_full_outbox_merges_the_oldest_neighbours_and_keeps_every_count(
    connection: sqlite3.Connection,
) -> None:
    outbox = Outbox(max_messages=16)
    for at in range(17):
        outbox.append_window(connection, window(at + 1, at_ms=at * 10))
    found = windows_in(connection)
    assert len(found) == 16
    assert (found[0].covers_from, found[0].sequence) == (1, 2)
    assert (found[0].start_ms, found[0].end_ms) == (0, 20)
    assert found[0].models[0].requests == 3
    assert found[0].models[0].errors == {ErrorKind.BACKEND: 2}
    assert found[0].models[0].classes == {"cat": 3}
    assert found[0].models[0].latency_us == Histogram(buckets={10: 3}, total=30.0)
    assert sum(w.models[0].requests for w in found) == sum(range(1, 18))


def test_merging_spreads_over_the_outbox_instead_of_growing_one_window(
    connection: sqlite3.Connection,
) -> None:
    outbox = Outbox(max_messages=16)
    for _ in range(60):
        outbox.append_window(connection, window())
    assert max(w.sequence - w.covers_from + 1 for w in windows_in(connection)) <= 8


def test_events_give_way_last_and_say_how_many(connection: sqlite3.Connection) -> None:
    outbox = Outbox(max_messages=16)
    for at in range(20):
        outbox.append_event(connection, event(str(at)))
    found = events_in(connection)
    assert len(found) == 16
    assert found[0].kind is EventKind.OUTBOX_DROPPED
    assert (found[0].covers_from, found[0].sequence) == (1, 5)
    assert "5 events" in found[0].detail
    assert [e.detail for e in found[1:]] == [str(at) for at in range(5, 20)]


def test_windows_too_large_to_merge_are_dropped_with_a_report(
    connection: sqlite3.Connection,
) -> None:
    outbox = Outbox(max_messages=16)

    def large(number: int) -> WindowDraft:
        classes = {f"{number}-{at}-" + "x" * 150: 1 for at in range(1000)}
        model = ModelWindow(
            family="animals", version=f"1.0.{number}", variant="v", requests=7, classes=classes
        )
        return WindowDraft(start_ms=0, end_ms=1, models=[model], system=SystemWindow())

    for number in range(30):
        outbox.append_window(connection, large(number))
    (dropped,) = events_in(connection)
    assert dropped.kind is EventKind.OUTBOX_DROPPED
    kept = sum(w.models[0].requests for w in windows_in(connection))
    assert f"{30 * 7 - kept} requests" in dropped.detail
    covered = [n for w in windows_in(connection) for n in range(w.covers_from, w.sequence + 1)]
    assert covered == list(range(1, 31))


def test_a_window_too_large_to_travel_is_split_and_keeps_every_count(
    connection: sqlite3.Connection,
) -> None:
    outbox = Outbox(max_messages=100)
    models = [
        ModelWindow(
            family="animals",
            version=f"1.0.{at}",
            variant="v",
            requests=at,
            classes={f"{label}" + "y" * 150: 1 for label in range(1000)},
        )
        for at in range(5)
    ]
    outbox.append_window(
        connection, WindowDraft(start_ms=0, end_ms=1, models=models, system=SystemWindow())
    )
    found = [model for w in windows_in(connection) for model in w.models]
    assert {model.version: model.requests for model in found} == {
        f"1.0.{at}": at for at in range(5)
    }


def test_labels_that_no_message_can_hold_go_and_the_counts_stay(
    connection: sqlite3.Connection,
) -> None:
    outbox = Outbox(max_messages=100)
    classes = {f"{at:04}" + "\N{OWL}" * 190: 1 for at in range(1000)}
    model = ModelWindow(family="animals", version="1.0.0", variant="v", requests=9, classes=classes)
    outbox.append_window(
        connection, WindowDraft(start_ms=0, end_ms=1, models=[model], system=SystemWindow())
    )
    ((stored,),) = [w.models for w in windows_in(connection)]
    assert (stored.requests, stored.classes) == (9, {})


class Died(BaseException):
    """The process, in the middle of a transaction."""


class ExactlyOnce(RuleBasedStateMachine):
    """Appends, sends, loses, acknowledges, crashes in any order; merging happens as it fills."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "state.db"
        self.connection = store.open_database(self.path)
        self.connection.execute("PRAGMA synchronous = OFF")  # the test kills no power
        self.outbox = Outbox(max_messages=16)
        self.server = TelemetryServer()
        self.network: list[Message] = []
        self.requests = 0
        self.events = 0

    def teardown(self) -> None:
        self.connection.close()
        self.folder.cleanup()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with store.transaction(self.connection):
            yield self.connection

    @rule(requests=st.integers(1, 50), version=st.sampled_from(["1.0.0", "1.1.0"]))
    def append_window(self, requests: int, version: str) -> None:
        with self.transaction() as connection:
            self.outbox.append_window(connection, window(requests, version=version))
        self.requests += requests

    @rule()
    def append_event(self) -> None:
        with self.transaction() as connection:
            self.outbox.append_event(connection, event())
        self.events += 1

    @rule(requests=st.integers(1, 50))
    def die_before_the_commit(self, requests: int) -> None:
        def half_done() -> None:
            with self.transaction() as connection:
                self.outbox.append_window(connection, window(requests))
                self.outbox.take(connection)
                raise Died

        with pytest.raises(Died):
            half_done()

    @rule()
    def publish(self) -> None:
        with self.transaction() as connection:
            taken = self.outbox.take(connection)
        self.network.extend(taken)

    @rule()
    def die_before_publishing(self) -> None:
        with self.transaction() as connection:
            self.outbox.take(connection)
        self.connection.close()
        self.connection = store.open_database(self.path)
        self.connection.execute("PRAGMA synchronous = OFF")

    @precondition(lambda self: self.network)
    @rule(data=st.data())
    def deliver_some(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.network) - 1))
        self.server.receives(self.network[at])
        if data.draw(st.booleans()):
            del self.network[at]

    @precondition(lambda self: self.network)
    @rule(data=st.data())
    def lose_some(self, data: st.DataObject) -> None:
        del self.network[data.draw(st.integers(0, len(self.network) - 1))]

    @rule(kind=st.sampled_from(list(Kind)))
    def acknowledge(self, kind: Kind) -> None:
        for stream in self.server.covered:
            if stream.startswith(kind):
                with self.transaction() as connection:
                    self.outbox.acknowledge(connection, self.server.ack(stream))

    @rule()
    def drain(self) -> None:
        for _ in range(100):
            with self.transaction() as connection:
                taken = self.outbox.take(connection)
            if not taken:
                break
            for message in taken:
                self.server.receives(message)
            for stream in self.server.covered:
                with self.transaction() as connection:
                    self.outbox.acknowledge(connection, self.server.ack(stream))
        dropped = self.connection.execute(
            "SELECT value FROM facts WHERE name = 'dropped_events'"
        ).fetchone()
        assert self.outbox.depth(self.connection) == {Kind.TELEMETRY: 0, Kind.EVENT: 0}
        assert self.server.requests == self.requests
        assert self.server.events + int(dropped[0] if dropped else 0) == self.events

    @invariant()
    def is_bounded(self) -> None:
        assert sum(self.outbox.depth(self.connection).values()) <= self.outbox.max_messages


TestExactlyOnce = ExactlyOnce.TestCase
TestExactlyOnce.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)

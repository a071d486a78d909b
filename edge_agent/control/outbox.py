"""The outbox: what the fleet must learn exactly once, in ``state.db`` until it is acknowledged.

Two streams, telemetry and events, each numbered without a gap. A message is marked as sent before
it is first published, and from then on it never changes, because the server may hold it already;
it is published again until the server acknowledges it. The server stores each number once.

The outbox is bounded. Before it grows over its limit, the pair of neighbouring telemetry windows
that together cover least, the oldest of such pairs first, becomes one coarser window: nothing is
lost but time resolution. When no pair can be merged, the two oldest neighbouring events become one
`OUTBOX_DROPPED` event that says how much was dropped; when there are none either, the oldest
window goes and such an event is appended. The survivor always carries the numbers of the other in
``covers_from``, so the stream keeps no gap that would hold back acknowledgements. Only messages
that were never sent are touched.

Every method works inside the caller's transaction, so a state change and its event are one.
"""

import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from edge_agent.control import facts
from edge_agent.control.coarser import coarser_window
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import (
    Ack,
    Event,
    EventKind,
    ModelWindow,
    SystemWindow,
    TelemetryWindow,
    decode,
    encode,
)
from fleet_protocol.topics import Channel
from fleet_protocol.update_states import UpdateState

_MAX_DETAIL = 4000
_MAX_MODELS = 256
_SELECT = "SELECT position, kind, stream, sequence, covers_from, payload FROM outbox"
_DROPPED_EVENTS = "dropped_events"
_DROPPED_REQUESTS = "dropped_requests"


class Kind(StrEnum):
    """The streams of the outbox."""

    TELEMETRY = "telemetry"
    EVENT = "event"


CHANNELS = {Kind.TELEMETRY: Channel.TELEMETRY, Kind.EVENT: Channel.EVENT}


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish, byte for byte as it was first stored or last merged."""

    position: int
    kind: Kind
    stream: str
    sequence: int
    covers_from: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDraft:
    """An event before it has a number."""

    at_ms: int
    kind: EventKind
    detail: str
    family: str | None = None
    version: str | None = None
    state: UpdateState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowDraft:
    """A telemetry window before it has a number."""

    start_ms: int
    end_ms: int
    models: list[ModelWindow]
    system: SystemWindow


class Outbox:
    """The rules of the outbox; the rows are in the database.

    Attributes:
        max_messages: the bound on messages kept.
        window: how many may be sent and not yet acknowledged.
    """

    def __init__(self, *, max_messages: int) -> None:
        self.max_messages = max_messages
        # A quarter at most, so that there is always something left that may be merged.
        self.window = max(1, min(64, max_messages // 4))

    def append_event(self, connection: sqlite3.Connection, draft: EventDraft) -> None:
        """Append an event."""
        self._make_room(connection)
        stream, sequence = _next(connection, Kind.EVENT)
        _insert(connection, Kind.EVENT, _event(stream, sequence, sequence, draft))

    def append_window(self, connection: sqlite3.Connection, draft: WindowDraft) -> None:
        """Append a window; one too large to travel is split by releases."""
        self._make_room(connection)
        stream, sequence = _next(connection, Kind.TELEMETRY)
        window = TelemetryWindow(
            stream=stream,
            sequence=sequence,
            covers_from=sequence,
            start_ms=draft.start_ms,
            end_ms=draft.end_ms,
            models=draft.models[:_MAX_MODELS],
            system=draft.system,
        )
        rest = draft.models[_MAX_MODELS:]
        while not _fits(window):
            if len(window.models) > 1:
                half = len(window.models) // 2
                rest = window.models[half:] + rest
                window = msgspec.structs.replace(window, models=window.models[:half])
            else:  # one release with more label text than a message holds: keep its counts
                only = msgspec.structs.replace(window.models[0], classes={})
                window = msgspec.structs.replace(window, models=[only])
        _insert(connection, Kind.TELEMETRY, window)
        if rest:
            self.append_window(
                connection,
                WindowDraft(
                    start_ms=draft.start_ms,
                    end_ms=draft.end_ms,
                    models=rest,
                    system=SystemWindow(),
                ),
            )

    def take(self, connection: sqlite3.Connection) -> list[Message]:
        """Return all that may be in flight now: what was sent before and as much new as fits.

        What is new is marked as sent, so nothing may be published before the transaction commits.
        """
        (in_flight,) = connection.execute("SELECT count(*) FROM outbox WHERE sent = 1").fetchone()
        connection.execute(
            "UPDATE outbox SET sent = 1 WHERE position IN "
            "(SELECT position FROM outbox WHERE sent = 0 ORDER BY position LIMIT ?)",
            (max(0, self.window - in_flight),),
        )
        return _messages(connection.execute(f"{_SELECT} WHERE sent = 1 ORDER BY position"))

    def acknowledge(self, connection: sqlite3.Connection, ack: Ack) -> int:
        """Delete what the server has committed; return how many messages that were.

        A message that was never sent is kept whatever the server says.
        """
        return connection.execute(
            "DELETE FROM outbox WHERE stream = ? AND sequence <= ? AND sent = 1",
            (ack.stream, ack.sequence),
        ).rowcount

    def depth(self, connection: sqlite3.Connection) -> dict[Kind, int]:
        """Return how many messages of each stream wait for their acknowledgement."""
        rows = connection.execute("SELECT kind, count(*) FROM outbox GROUP BY kind")
        return dict.fromkeys(Kind, 0) | {Kind(kind): count for kind, count in rows}

    def _make_room(self, connection: sqlite3.Connection) -> None:
        while sum(self.depth(connection).values()) >= self.max_messages:
            if not (
                _merge_windows(connection) or _fold_events(connection) or _drop_window(connection)
            ):
                return


def _next(connection: sqlite3.Connection, kind: Kind) -> tuple[str, int]:
    connection.execute(
        "INSERT INTO streams VALUES (?, ?, 1) ON CONFLICT (kind) DO NOTHING",
        (kind, f"{kind}-{secrets.token_hex(8)}"),
    )
    stream, sequence = connection.execute(
        "SELECT stream, next_sequence FROM streams WHERE kind = ?", (kind,)
    ).fetchone()
    connection.execute(
        "UPDATE streams SET next_sequence = next_sequence + 1 WHERE kind = ?", (kind,)
    )
    return str(stream), int(sequence)


def _insert(connection: sqlite3.Connection, kind: Kind, message: Event | TelemetryWindow) -> None:
    connection.execute(
        "INSERT INTO outbox (kind, stream, sequence, covers_from, payload) VALUES (?, ?, ?, ?, ?)",
        (kind, message.stream, message.sequence, message.covers_from, encode(message)),
    )


def _messages(rows: Iterable[tuple[int, str, str, int, int, bytes]]) -> list[Message]:
    return [Message(row[0], Kind(row[1]), *row[2:]) for row in rows]


def _event(stream: str, sequence: int, covers_from: int, draft: EventDraft) -> Event:
    return Event(
        stream=stream,
        sequence=sequence,
        covers_from=covers_from,
        at_ms=draft.at_ms,
        kind=draft.kind,
        detail=draft.detail[:_MAX_DETAIL],
        family=draft.family,
        version=draft.version,
        state=draft.state,
    )


def _fits(window: TelemetryWindow) -> bool:
    try:
        encode(window)
    except ProtocolError:
        return False
    return True


def _pairs(
    connection: sqlite3.Connection, kind: Kind, *, narrowest_first: bool
) -> list[tuple[int, int]]:
    """Return positions of never-sent neighbours, a bounded number of them, or else oldest first."""
    return connection.execute(
        "SELECT one.position, other.position FROM outbox AS one JOIN outbox AS other "
        "ON other.stream = one.stream AND other.covers_from = one.sequence + 1 "
        "WHERE one.kind = ? AND one.sent = 0 AND other.sent = 0 "
        "ORDER BY ? * (other.sequence - one.covers_from), one.position LIMIT 16",
        (kind, narrowest_first),
    ).fetchall()


def _pair(connection: sqlite3.Connection, positions: tuple[int, int]) -> tuple[Message, Message]:
    first, second = _messages(
        connection.execute(f"{_SELECT} WHERE position IN (?, ?) ORDER BY position", positions)
    )
    return first, second


def _replace(
    connection: sqlite3.Connection,
    pair: tuple[Message, Message],
    survivor: Event | TelemetryWindow,
) -> None:
    first, second = pair
    connection.execute("DELETE FROM outbox WHERE position = ?", (first.position,))
    connection.execute(
        "UPDATE outbox SET covers_from = ?, payload = ? WHERE position = ?",
        (survivor.covers_from, encode(survivor), second.position),
    )


def _merge_windows(connection: sqlite3.Connection) -> bool:
    for positions in _pairs(connection, Kind.TELEMETRY, narrowest_first=True):
        pair = _pair(connection, positions)
        one, other = (decode(message.payload, TelemetryWindow) for message in pair)
        window = coarser_window(one, other)
        if len(window.models) <= _MAX_MODELS and _fits(window):
            _replace(connection, pair, window)
            return True
    return False


def _fold_events(connection: sqlite3.Connection) -> bool:
    for positions in _pairs(connection, Kind.EVENT, narrowest_first=False):
        pair = _pair(connection, positions)
        events = [decode(message.payload, Event) for message in pair]
        real = sum(event.kind is not EventKind.OUTBOX_DROPPED for event in events)
        draft = _drop_report(connection, at_ms=events[1].at_ms, events=real, requests=0)
        first, second = pair
        _replace(connection, pair, _event(second.stream, second.sequence, first.covers_from, draft))
        return True
    return False


def _drop_window(connection: sqlite3.Connection) -> bool:
    """Give up the oldest window that cannot be merged, and say so."""
    for positions in _pairs(connection, Kind.TELEMETRY, narrowest_first=False):
        pair = _pair(connection, positions)
        lost, kept = (decode(message.payload, TelemetryWindow) for message in pair)
        _replace(connection, pair, msgspec.structs.replace(kept, covers_from=lost.covers_from))
        requests = sum(model.requests for model in lost.models)
        draft = _drop_report(connection, at_ms=kept.end_ms, events=0, requests=requests)
        stream, sequence = _next(connection, Kind.EVENT)
        _insert(connection, Kind.EVENT, _event(stream, sequence, sequence, draft))
        return True
    return False


def _drop_report(
    connection: sqlite3.Connection, *, at_ms: int, events: int, requests: int
) -> EventDraft:
    events += int(facts.get(connection, _DROPPED_EVENTS) or 0)
    requests += int(facts.get(connection, _DROPPED_REQUESTS) or 0)
    facts.put(connection, _DROPPED_EVENTS, str(events))
    facts.put(connection, _DROPPED_REQUESTS, str(requests))
    return EventDraft(
        at_ms=at_ms,
        kind=EventKind.OUTBOX_DROPPED,
        detail=f"the outbox was full; since the enrolment {events} events and the telemetry of "
        f"{requests} requests were dropped",
    )

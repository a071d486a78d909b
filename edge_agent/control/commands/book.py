"""The commands that were taken, in ``state.db``: waiting, running, or answered and not yet sent.

The sequence of a command rises in the transaction that takes it, so no command is taken twice; it
is marked as running before anything happens, so none runs twice. Rows are few: no more are taken
than `MAX_OPEN` until answers have gone out. Functions work inside the caller's transaction.
"""

import sqlite3
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from edge_agent.control import facts
from edge_agent.control.assignment import Mark
from fleet_protocol.command_answers import Answer
from fleet_protocol.commands import MAX_OPEN, Command

_ROOT = "command_root"
_SEQUENCE = "command_sequence"
_RAN = "command_ran_"


class State(StrEnum):
    """How far a command is on this device."""

    WAITING = "waiting"
    RUNNING = "running"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Taken:
    """A command of the book.

    Attributes:
        begun_ms: when it began to run.
    """

    position: int
    command: Command
    begun_ms: int | None


def mark(connection: sqlite3.Connection) -> Mark:
    """Return how far commands have come: the director's root and the sequence of the last one."""
    root_version = int(facts.get(connection, _ROOT) or 1)
    return Mark(root_version, int(facts.get(connection, _SEQUENCE) or 0))


def raise_mark(connection: sqlite3.Connection, reached: Mark) -> None:
    """Take note that commands have come that far; it never goes back."""
    if reached > mark(connection):
        facts.put(connection, _ROOT, str(reached.root_version))
        facts.put(connection, _SEQUENCE, str(reached.version))


def has_room(connection: sqlite3.Connection) -> bool:
    """Say whether one more may be taken."""
    (count,) = connection.execute("SELECT count(*) FROM commands").fetchone()
    return int(count) < MAX_OPEN


def take(connection: sqlite3.Connection, command: Command, reached: Mark) -> None:
    """Take a command."""
    raise_mark(connection, reached)
    connection.execute(
        "INSERT INTO commands (id, command, state) VALUES (?, ?, ?)",
        (command.id, msgspec.json.encode(command), State.WAITING),
    )


def next_waiting(connection: sqlite3.Connection) -> Taken | None:
    """Return the first command that waits to be run."""
    found = _rows(connection, State.WAITING)
    return found[0] if found else None


def running(connection: sqlite3.Connection) -> list[Taken]:
    """Return what was begun and not answered."""
    return _rows(connection, State.RUNNING)


def begin(connection: sqlite3.Connection, taken: Taken, *, kind: str, now_ms: int) -> Taken:
    """Mark a command as running, and the moment for its kind."""
    connection.execute(
        "UPDATE commands SET state = ?, begun_ms = ? WHERE position = ?",
        (State.RUNNING, now_ms, taken.position),
    )
    facts.put(connection, _RAN + kind, str(now_ms))
    return Taken(taken.position, taken.command, now_ms)


def last_ran_ms(connection: sqlite3.Connection, kind: str) -> int:
    """Return when a command of a kind last began, 0 if none has."""
    return int(facts.get(connection, _RAN + kind) or 0)


def answer(connection: sqlite3.Connection, given: Answer) -> None:
    """Keep the answer of a command until it is acknowledged; the first one stays."""
    connection.execute(
        "UPDATE commands SET state = ?, answer = ? WHERE id = ? AND state != ?",
        (State.ANSWERED, msgspec.json.encode(given), given.command_id, State.ANSWERED),
    )


def next_answer(connection: sqlite3.Connection) -> tuple[int, bytes] | None:
    """Return position and content of the first answer that is to be sent."""
    row = connection.execute(
        "SELECT position, answer FROM commands WHERE state = ? ORDER BY position LIMIT 1",
        (State.ANSWERED,),
    ).fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


def forget(connection: sqlite3.Connection, position: int) -> None:
    """Remove a command whose answer the server has."""
    connection.execute("DELETE FROM commands WHERE position = ?", (position,))


def _rows(connection: sqlite3.Connection, state: State) -> list[Taken]:
    rows = connection.execute(
        "SELECT position, command, begun_ms FROM commands WHERE state = ? ORDER BY position",
        (state,),
    )
    return [
        Taken(position, msgspec.json.decode(content, type=Command), begun_ms)
        for position, content, begun_ms in rows
    ]

"""Remembered choices among variants, in ``state.db``: measured once, valid while the key is."""

import sqlite3

import msgspec

from fleet_protocol.names import Sha256

_MAX_KEPT = 256


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant won on this device.

    Attributes:
        reason: for a person, with the figures.
    """

    sha256: Sha256
    backend: str
    accelerator: str
    reason: str


def load(connection: sqlite3.Connection) -> dict[str, Choice]:
    """Return all remembered choices by key."""
    rows = connection.execute("SELECT key, content FROM choices")
    return {key: msgspec.json.decode(content, type=Choice) for key, content in rows}


def remember(connection: sqlite3.Connection, *, key: str, choice: Choice) -> None:
    """Keep a choice, and only the newest ones (in the caller's transaction)."""
    connection.execute("DELETE FROM choices WHERE key = ?", (key,))
    connection.execute(
        "INSERT INTO choices (key, content) VALUES (?, ?)", (key, msgspec.json.encode(choice))
    )
    connection.execute(
        "DELETE FROM choices WHERE position NOT IN "
        "(SELECT position FROM choices ORDER BY position DESC LIMIT ?)",
        (_MAX_KEPT,),
    )

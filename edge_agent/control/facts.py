"""Single durable values of the control process, by name, in ``state.db``."""

import sqlite3


def get(connection: sqlite3.Connection, name: str) -> str | None:
    """Return the value of a fact, or None if it was never put."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def put(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Set a fact (in the caller's transaction)."""
    connection.execute(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )

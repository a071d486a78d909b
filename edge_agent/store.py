"""All durable writes of the device: whole files, blobs that move to their name, ``state.db``.

Whatever returns from here has reached the disk (``fsync`` of the file and of its directory, or a
SQLite commit at ``synchronous=FULL``), and a power cut before that leaves the old state whole.
What the writes mean is decided by the callers.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_agent.errors import AgentError

PRIVATE = 0o600
"""Mode of everything written here unless the caller says otherwise."""

_BUSY_TIMEOUT_S = 10.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE TABLE assignment (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            version INTEGER NOT NULL,
            document_sha256 TEXT NOT NULL,
            content BLOB NOT NULL)""",
        """CREATE TABLE floors (
            family TEXT PRIMARY KEY,
            security_counter INTEGER NOT NULL)""",
        """CREATE TABLE updates (
            family TEXT PRIMARY KEY,
            version TEXT NOT NULL,
            state TEXT NOT NULL,
            record BLOB NOT NULL)""",
        """CREATE TABLE committed (
            family TEXT PRIMARY KEY,
            version TEXT NOT NULL,
            record BLOB NOT NULL)""",
        """CREATE TABLE streams (
            kind TEXT PRIMARY KEY,
            stream TEXT NOT NULL,
            next_sequence INTEGER NOT NULL)""",
        """CREATE TABLE outbox (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            stream TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            covers_from INTEGER NOT NULL,
            sent INTEGER NOT NULL DEFAULT 0,
            payload BLOB NOT NULL,
            UNIQUE (stream, sequence),
            UNIQUE (stream, covers_from))""",
        "CREATE INDEX outbox_waiting ON outbox (sent, position)",
        """CREATE TABLE baselines (
            file TEXT PRIMARY KEY,
            counts BLOB NOT NULL)""",
    ),
    (
        """CREATE TABLE choices (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            key TEXT NOT NULL UNIQUE,
            content BLOB NOT NULL)""",
    ),
    (
        """CREATE TABLE commands (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            command BLOB NOT NULL,
            state TEXT NOT NULL,
            begun_ms INTEGER,
            answer BLOB)""",
    ),
    ("ALTER TABLE assignment ADD COLUMN signed_sha256 TEXT NOT NULL DEFAULT ''",),
)
SCHEMA_VERSION = len(_MIGRATIONS)


class StoreError(AgentError):
    """Something could not be made durable, or ``state.db`` cannot be used."""


class DiskFullError(StoreError):
    """The disk has no room for it; somebody has to make some."""


def refusal(what: str, error: OSError) -> StoreError:
    """Return the error for something that the disk refused."""
    kind = DiskFullError if error.errno in _FULL else StoreError
    return kind(f"{what}: {error.strerror or error}")


def write_file(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Replace a file by new content, durably and atomically: readers see the old or the new one.

    Raises:
        StoreError: the disk refused; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode
        )
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise refusal(f"cannot write {path}", error) from error


def publish_file(partial: Path, final: Path) -> None:
    """Give a finished file its final name, durably, content first.

    Raises:
        StoreError: the disk refused; the file keeps its first name.
    """
    try:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(final)
        sync_directory(final.parent)
    except OSError as error:
        raise refusal(f"cannot store {final}", error) from error


def remove_file(path: Path) -> None:
    """Remove a file; one that is gone already is fine.

    Raises:
        StoreError: the disk refused, or says that there is none where one is.
    """
    try:
        path.unlink()
    except FileNotFoundError as error:
        if os.path.lexists(path):
            raise StoreError(f"cannot remove {path}: the disk does not find it") from error
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: the disk refused.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make everything below a directory durable, for files that a library wrote.

    Raises:
        StoreError: the disk refused.
    """
    try:
        for folder, _, names in os.walk(path):
            for name in names:
                with Path(folder, name).open("rb") as file:
                    os.fsync(file.fileno())
            sync_directory(Path(folder))
    except OSError as error:
        raise refusal(f"cannot store {path}", error) from error


def open_database(path: Path) -> sqlite3.Connection:
    """Open ``state.db``, made and brought to the newest schema as needed.

    The connection is in autocommit mode: writes go through `transaction`. It may be handed between
    threads, one at a time.

    Raises:
        StoreError: it cannot be opened, is damaged, or was written by a newer agent.
    """
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S
        )
    except sqlite3.Error as error:
        raise StoreError(f"cannot open {path}: {error}") from error
    try:
        path.chmod(PRIVATE)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection, path)
        sync_directory(path.parent)
    except (sqlite3.Error, OSError) as error:
        connection.close()
        raise StoreError(
            f"cannot use {path}: {error}. If it is damaged, move it away, with the files beside "
            "it whose names begin alike, and start again: the device keeps its models, identity, "
            "floors and the version of its assignment, but telemetry and events not sent yet stay "
            "in the old file"
        ) from error
    except StoreError:
        connection.close()
        raise
    return connection


def read_only_database(path: Path) -> sqlite3.Connection:
    """Open ``state.db`` beside a running agent, to look at it.

    Raises:
        StoreError: it is not there or cannot be read.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S
        )
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    if version != SCHEMA_VERSION:
        connection.close()
        raise StoreError(
            f"{path} has schema {version}, this agent reads {SCHEMA_VERSION}: "
            "use the version of skerry that runs on this device"
        )
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run the block as one transaction: all of it is on the disk afterwards, or none of it.

    Raises:
        StoreError: the database refused (full disk, damage); nothing was changed.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # SQLite rolls back itself when the disk is full
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        kind = DiskFullError if full else StoreError
        raise kind(f"the database of the device refused a write: {error}") from error


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION:
            return  # setting it again would be a write, for which a full disk has no room
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{path} has schema {version} and this agent knows {SCHEMA_VERSION}: it was "
                "written by a newer skerry; install that version again"
            )
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

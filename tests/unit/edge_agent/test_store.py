"""Durable writes: whole or not at all."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent import store
from edge_agent.store import DiskFullError, StoreError


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "f"
    store.write_file(path, b"one")
    store.write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["f"]  # noqa: PTH208 (names are what is looked at)


def test_a_refused_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    store.write_file(path, b"one")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.write_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".f.new").symlink_to(victim)
    with pytest.raises(StoreError):
        store.write_file(tmp_path / "f", b"evil")
    assert victim.read_bytes() == b"mine"


def test_a_folder_that_is_missing_is_an_error_of_ours(tmp_path: Path) -> None:
    for act in (
        lambda: store.write_file(tmp_path / "no" / "f", b""),
        lambda: store.publish_file(tmp_path / "no" / "f.part", tmp_path / "f"),
        lambda: store.open_database(tmp_path / "no" / "state.db"),
        lambda: store.read_only_database(tmp_path / "no" / "state.db"),
    ):
        with pytest.raises(StoreError):
            act()


def test_a_published_file_moves_and_a_removed_one_may_be_gone(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"x")
    store.publish_file(tmp_path / "f.part", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"x"
    store.remove_file(tmp_path / "f")
    store.remove_file(tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_file_that_stays_is_not_taken_for_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"x")

    def deny(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "unlink", deny)
    with pytest.raises(StoreError, match="does not find it"):
        store.remove_file(tmp_path / "f")
    store.remove_file(tmp_path / "g")


def test_the_database_is_durable_and_private(tmp_path: Path) -> None:
    with closing(store.open_database(tmp_path / "state.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA user_version").fetchone() == (store.SCHEMA_VERSION,)
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


def test_an_existing_database_is_opened_with_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(store.open_database(path)) as connection, store.transaction(connection):
        connection.execute("INSERT INTO floors VALUES ('animals', 3)")
    with closing(store.open_database(path)) as connection:
        assert connection.execute("SELECT * FROM floors").fetchall() == [("animals", 3)]
    with closing(store.read_only_database(path)) as connection:
        assert connection.execute("SELECT * FROM floors").fetchall() == [("animals", 3)]
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("DELETE FROM floors")


def test_a_database_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreError, match="newer skerry"):
        store.open_database(path)
    with pytest.raises(StoreError, match="schema 999"):
        store.read_only_database(path)


def test_a_damaged_database_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="move it away"):
        store.open_database(path)


def test_a_disk_that_fills_up_within_a_transaction_is_told_as_that(tmp_path: Path) -> None:
    with closing(store.open_database(tmp_path / "state.db")) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(DiskFullError, match="full"), store.transaction(connection):
            connection.execute("INSERT INTO facts VALUES ('large', ?)", ("x" * 100_000,))
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM facts").fetchone() == (0,)


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    with closing(store.open_database(tmp_path / "state.db")) as connection:
        with pytest.raises(KeyboardInterrupt):
            insert(connection, "INSERT INTO floors VALUES ('plants', 3)", interrupted=True)
        with pytest.raises(StoreError, match="refused"):
            insert(connection, "INSERT INTO nothing VALUES (1)")
        assert connection.execute("SELECT count(*) FROM floors").fetchone() == (0,)
        with store.transaction(connection):
            connection.execute("INSERT INTO floors VALUES ('animals', 3)")
        assert connection.execute("SELECT count(*) FROM floors").fetchone() == (1,)


def insert(connection: sqlite3.Connection, statement: str, *, interrupted: bool = False) -> None:
    """Run a good statement and another one in a transaction, and perhaps die before its end."""
    with store.transaction(connection):
        connection.execute("INSERT INTO floors VALUES ('animals', 3)")
        connection.execute(statement)
        if interrupted:
            raise KeyboardInterrupt

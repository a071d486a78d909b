"""``high-water.json``: a second copy of what may never go down, should ``state.db`` be lost.

Floors and the version of the accepted assignment protect the device from going back, the sequence
of the last command from doing one twice; a database that is damaged and moved away must not take
them with it. The copy is written after each commit, each accepted assignment and each command that
is taken, and a start takes the higher of both.
"""

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent import store
from edge_agent.control import assignment, facts
from edge_agent.control.assignment import NO_MARK, Mark
from edge_agent.control.commands import book
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal
from edge_agent.store import StoreError
from fleet_protocol.claims import Floor
from fleet_protocol.names import Family

logger = logging.getLogger(__name__)

_LOWEST_VERSION = "lowest_assignment_version"
_LOWEST_ROOT = "lowest_assignment_root"
_LOWEST_DOCUMENT = "lowest_assignment_document"
_MAX_BYTES = 1024 * 1024


class HighWater(msgspec.Struct, frozen=True, kw_only=True):
    """What never goes down.

    Attributes:
        floors: lowest security counter by family.
        assignment_version: the highest that was accepted, 0 before the first.
        director_root_version: under which it was accepted; versions of assignments begin anew
            with a root that replaces the assignment keys.
        assignment_sha256: of what was signed in it; older agents wrote that of the document, byte
            for byte, or nothing.
        command_sequence: of the last command that was taken, 0 before the first.
        command_root_version: of the director's root under which it was.
    """

    schema: Literal[1] = 1
    floors: dict[Family, Floor] = {}
    assignment_version: Annotated[int, msgspec.Meta(ge=0)] = 0
    director_root_version: Annotated[int, msgspec.Meta(ge=1)] = 1
    assignment_sha256: str = ""
    command_sequence: Annotated[int, msgspec.Meta(ge=0)] = 0
    command_root_version: Annotated[int, msgspec.Meta(ge=1)] = 1

    @property
    def mark(self) -> Mark:
        """How far assignments had come."""
        return Mark(self.director_root_version, self.assignment_version)


def lowest_mark(connection: sqlite3.Connection) -> Mark:
    """Return how far assignments had come before this database began."""
    root_version = int(facts.get(connection, _LOWEST_ROOT) or 1)
    return Mark(root_version, int(facts.get(connection, _LOWEST_VERSION) or 0))


def lowest_document(connection: sqlite3.Connection) -> str:
    """Return a hash of the one document that may have the version of that mark; empty for any."""
    return facts.get(connection, _LOWEST_DOCUMENT) or ""


class HighWaterFile:
    """The file; control is its only writer."""

    def __init__(self, path: Path, *, journal: Journal) -> None:
        self._path = path
        self._journal = journal

    def read(self) -> HighWater:
        """Return what the file says; nothing if there is none or it is damaged."""
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(_MAX_BYTES), type=HighWater)
        except FileNotFoundError:
            return HighWater()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.error("high_water_damaged", extra={"reason": str(error)})  # noqa: TRY400 (no defect of ours)
            return HighWater()

    def restore(self, connection: sqlite3.Connection, known: HighWater) -> None:
        """Raise the database to what the file knew (in the caller's transaction)."""
        self._journal.raise_floors(connection, known.floors)
        book.raise_mark(connection, Mark(known.command_root_version, known.command_sequence))
        accepted = assignment.load(connection)
        if known.mark > max(lowest_mark(connection), accepted.mark if accepted else NO_MARK):
            facts.put(connection, _LOWEST_VERSION, str(known.assignment_version))
            facts.put(connection, _LOWEST_ROOT, str(known.director_root_version))
            facts.put(connection, _LOWEST_DOCUMENT, known.assignment_sha256)

    async def keep(self, database: Database) -> None:
        """Write what the database knows; a disk that refuses is logged, the next write makes up.

        Raises:
            StoreError: the database cannot be read.
        """
        now = await database.transact(self._of)
        try:
            await asyncio.to_thread(self._write, now)
        except StoreError as error:
            logger.error("high_water_not_kept", extra={"reason": str(error)})  # noqa: TRY400 (a full disk needs no traceback)

    def _of(self, connection: sqlite3.Connection) -> HighWater:
        accepted = assignment.load(connection)
        mark, document = lowest_mark(connection), lowest_document(connection)
        if accepted is not None and accepted.mark >= mark:
            mark, document = accepted.mark, accepted.signed_sha256 or accepted.document_sha256
        return HighWater(
            floors=self._journal.floors(connection),
            assignment_version=mark.version,
            director_root_version=mark.root_version,
            assignment_sha256=document,
            command_sequence=book.mark(connection).version,
            command_root_version=book.mark(connection).root_version,
        )

    def _write(self, now: HighWater) -> None:
        if now != self.read():
            store.write_file(self._path, msgspec.json.format(msgspec.json.encode(now)))

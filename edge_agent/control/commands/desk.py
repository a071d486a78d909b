"""Where mailboxes arrive: each command in them is verified and taken, or refused, in order.

A mailbox names what is open at the server, so most of it is known already and passed over. What is
refused is told within the bounds of `Refusals`. A mailbox that could not be judged under the newest
root, because the server did not say which that is, is worth another look.
"""

import asyncio
import hashlib
import logging
import sqlite3
from dataclasses import dataclass
from functools import partial

from edge_agent.control.assignment import Mark
from edge_agent.control.clock import TrustedClock
from edge_agent.control.commands import book
from edge_agent.control.commands.verification import verify
from edge_agent.control.database import Database
from edge_agent.control.director_roots import DirectorRoots
from edge_agent.control.high_water import HighWaterFile
from edge_agent.control.pulse import Pulse
from edge_agent.control.refusals import Refusals
from edge_agent.control.trust import Director, TrustError
from fleet_protocol import commands
from fleet_protocol.commands import Command, Envelope
from fleet_protocol.errors import ProtocolError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Judged:
    """What became of the commands of a mailbox."""

    taken: int = 0
    full: bool = False
    refused: tuple[str, ...] = ()


class CommandDesk:
    """Judges the newest mailbox.

    Attributes:
        offered: bumped when a mailbox came.
        sequence: of the last command that was taken, 0 before the first.
        taken: bumped when that has risen.
    """

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        device_id: str,
        roots: DirectorRoots,
        database: Database,
        high_water: HighWaterFile,
        refusals: Refusals,
        trusted_clock: TrustedClock,
    ) -> None:
        self.offered = Pulse()
        self.sequence = 0
        self.taken = Pulse()
        self._device_id = device_id
        self._roots = roots
        self._database = database
        self._high_water = high_water
        self._refusals = refusals
        self._trusted_clock = trusted_clock
        self._newest: bytes | None = None
        self._judged = ""

    def restore(self, connection: sqlite3.Connection) -> None:
        """Take up how far commands have come (in the caller's transaction)."""
        self.sequence = book.mark(connection).version

    def offer(self, payload: bytes) -> None:
        """Take a mailbox as it came; only the newest is looked at."""
        self._newest = payload
        self.offered.bump()

    async def judge(self) -> bool:
        """Take what is new in the newest mailbox.

        Returns:
            Whether it is worth another look later: the book was full, or a command was refused
            while the server could not be asked for the director's newest root.

        Raises:
            StoreError: the database refused; the mailbox counts as not looked at.
        """
        payload = self._newest
        if payload is None:
            return False
        digest = hashlib.sha256(payload).hexdigest()
        if digest == self._judged:
            return False
        try:
            envelopes = commands.decode_mailbox(payload).commands if payload else []
        except ProtocolError as error:
            await self._refusals.tell(str(error))
            self._judged = digest
            return False
        asked = not envelopes or await asyncio.to_thread(self._roots.refresh)
        judged = await self._database.transact(partial(self._judge, envelopes=envelopes))
        if judged.taken:
            await self._database.transact(self.restore)
            self.taken.bump()
            await self._high_water.keep(self._database)
        for reason in judged.refused:
            await self._refusals.tell(reason)
        again = judged.full or bool(judged.refused and not asked)
        if not again:
            self._judged = digest
        return again

    def _judge(self, connection: sqlite3.Connection, *, envelopes: list[Envelope]) -> _Judged:
        judged = _Judged()
        if not envelopes:
            return judged
        try:
            director = self._roots.trusted()
            found = self._verified(connection, director, envelopes, judged)
            mark = book.mark(connection)
            anew = director.begins_anew(mark)
        except TrustError as error:
            judged.refused = (str(error),)
            return judged
        lowest = 0 if anew else mark.version
        for command in sorted(found, key=lambda command: command.sequence):
            if command.sequence <= lowest:
                continue
            if not book.has_room(connection):
                judged.full = True
                break
            book.take(connection, command, Mark(director.root.version, command.sequence))
            lowest = command.sequence
            judged.taken += 1
            logger.info("command_taken", extra={"id": command.id, "sequence": command.sequence})
        return judged

    def _verified(
        self,
        connection: sqlite3.Connection,
        director: Director,
        envelopes: list[Envelope],
        judged: _Judged,
    ) -> list[Command]:
        now = self._trusted_clock.now(connection)
        found = []
        for envelope in envelopes:
            try:
                found.append(
                    verify(envelope, root=director.root, device_id=self._device_id, now=now)
                )
            except TrustError as error:
                judged.refused = (*judged.refused, str(error))
        return found

"""Where assignments arrive: verified, and accepted or refused, in one transaction with the event.

A refused document changes nothing but the outbox, and the same document again (the broker keeps it
and sends it after each reconnect) not even that.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.control import assignment, facts
from edge_agent.control.assignment import Accepted
from edge_agent.control.clock import Clock, TrustedClock
from edge_agent.control.database import Database
from edge_agent.control.high_water import HighWaterFile, lowest_assignment_version
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.control.pulse import Pulse
from edge_agent.control.trust import TrustError, director_root, verify_assignment
from fleet_protocol.messages import EventKind

logger = logging.getLogger(__name__)

_LAST_REFUSED = "refused_assignment"
_MAX_CHAIN = 256
_MAX_ROOT_BYTES = 512 * 1024


def director_chain(folder: Path) -> list[bytes]:
    """Return the successors of the pinned director root, ``2.root.json`` and so on, in order."""
    chain = []
    for version in range(2, 2 + _MAX_CHAIN):
        try:
            with (folder / f"{version}.root.json").open("rb") as file:
                chain.append(file.read(_MAX_ROOT_BYTES))
        except FileNotFoundError:
            break
    return chain


class AssignmentDesk:
    """Decides on each document that arrives.

    Attributes:
        accepted: bumped when a new assignment was accepted.
    """

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        device_id: str,
        pinned_root: bytes,
        chain: Callable[[], Sequence[bytes]],
        database: Database,
        high_water: HighWaterFile,
        outbox: Outbox,
        clock: Clock,
        trusted_clock: TrustedClock,
    ) -> None:
        self.accepted = Pulse()
        self._device_id = device_id
        self._pinned_root = pinned_root
        self._chain = chain
        self._database = database
        self._high_water = high_water
        self._outbox = outbox
        self._clock = clock
        self._trusted_clock = trusted_clock

    async def receive(self, payload: bytes) -> None:
        """Accept or refuse a document.

        Raises:
            StoreError: the database refused; the document counts as not received.
        """
        if await self._database.transact(lambda connection: self._decide(connection, payload)):
            self.accepted.bump()
            await self._high_water.keep(self._database)

    def _decide(self, connection: sqlite3.Connection, payload: bytes) -> bool:
        before = assignment.load(connection)
        try:
            accepted = verify_assignment(
                payload,
                root=director_root(self._pinned_root, self._chain()),
                device_id=self._device_id,
                now=self._trusted_clock.now(connection),
                accepted=before,
                lowest_version=lowest_assignment_version(connection),
            )
        except TrustError as error:
            self._refuse(connection, payload, str(error))
            return False
        if accepted is before:
            return False
        assignment.store(connection, accepted)
        self._announce(connection, accepted)
        return True

    def _announce(self, connection: sqlite3.Connection, accepted: Accepted) -> None:
        releases = [
            f"{release.family} {release.version}"
            for release in accepted.assignment.releases.values()
        ]
        logger.info(
            "assignment_accepted",
            extra={"version": accepted.assignment.version, "releases": releases},
        )
        self._append(
            connection,
            EventKind.ASSIGNMENT_ACCEPTED,
            f"assignment {accepted.assignment.version}: {', '.join(releases) or 'nothing to run'}",
        )

    def _refuse(self, connection: sqlite3.Connection, payload: bytes, reason: str) -> None:
        document = hashlib.sha256(payload).hexdigest()
        if facts.get(connection, _LAST_REFUSED) == document:
            return
        facts.put(connection, _LAST_REFUSED, document)
        logger.warning("assignment_refused", extra={"reason": reason, "sha256": document})
        self._append(connection, EventKind.ASSIGNMENT_REFUSED, reason)

    def _append(self, connection: sqlite3.Connection, kind: EventKind, detail: str) -> None:
        at_ms = self._clock.now_ms()
        self._outbox.append_event(connection, EventDraft(at_ms=at_ms, kind=kind, detail=detail))

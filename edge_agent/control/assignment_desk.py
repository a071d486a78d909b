"""Where assignments arrive: verified, and accepted or refused, in one transaction with the event.

A refused document changes nothing but the outbox, and the same document again (the broker keeps it
and sends it after each reconnect) not even that; of another copy of the accepted one the hash is
noted, by which the server knows what is here. Before a new document is judged, the server is
asked for the director's newest root; without an answer within a few seconds it is judged by the
roots that are here, so that a server that trickles keeps no assignment back.
"""

import asyncio
import hashlib
import logging
import sqlite3
from enum import Enum, auto
from functools import partial

from edge_agent.control import assignment, facts
from edge_agent.control.assignment import Accepted
from edge_agent.control.clock import Clock, TrustedClock
from edge_agent.control.database import Database
from edge_agent.control.director_roots import DirectorRoots
from edge_agent.control.high_water import HighWaterFile, lowest_document, lowest_mark
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.control.pulse import Pulse
from edge_agent.control.refusals import EventBudget, Refusals
from edge_agent.control.trust import TrustError, verify_assignment
from fleet_protocol.messages import EventKind

logger = logging.getLogger(__name__)

_LAST_REFUSED = "refused_assignment"
_ROOTS_WITHIN_S = 10.0


class _Verdict(Enum):
    ACCEPTED = auto()
    KNOWN = auto()
    REFUSED = auto()


class AssignmentDesk:
    """Decides on each document that arrives.

    Attributes:
        accepted: bumped when a new assignment was accepted.
    """

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        device_id: str,
        roots: DirectorRoots,
        database: Database,
        high_water: HighWaterFile,
        outbox: Outbox,
        refusals: Refusals,
        clock: Clock,
        trusted_clock: TrustedClock,
    ) -> None:
        self.accepted = Pulse()
        self._device_id = device_id
        self._roots = roots
        self._database = database
        self._high_water = high_water
        self._outbox = outbox
        self._clock = clock
        self._trusted_clock = trusted_clock
        self._refusals = refusals
        self._budget = EventBudget(clock)
        self._asking: asyncio.Task[bool] | None = None

    async def receive(self, payload: bytes) -> bool:
        """Accept or refuse a document.

        Returns:
            False if it was refused while the server could not be asked for the director's newest
            root: the document may be good under that root and is worth another look.

        Raises:
            StoreError: the database refused; the document counts as not received.
        """
        document = hashlib.sha256(payload).hexdigest()
        accepted = await self._database.transact(assignment.load)
        if accepted is not None and accepted.document_sha256 == document:
            return True
        asked = await self._asked_for_roots()
        verdict = await self._database.transact(partial(self._decide, payload=payload))
        if verdict is _Verdict.ACCEPTED:
            self.accepted.bump()
            await self._high_water.keep(self._database)
        return asked or verdict is not _Verdict.REFUSED

    async def _asked_for_roots(self) -> bool:
        """Say whether the server was asked for the director's newest root; it may go on coming."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(asyncio.to_thread(self._roots.refresh))
        await asyncio.wait({self._asking}, timeout=_ROOTS_WITHIN_S)
        if not self._asking.done():
            logger.warning("director_roots_not_waited_for", extra={"waited_s": _ROOTS_WITHIN_S})
            return False
        if self._roots.refusal:
            await self._refusals.tell(self._roots.refusal)
        return self._asking.result()

    def _decide(self, connection: sqlite3.Connection, *, payload: bytes) -> "_Verdict":
        before = assignment.load(connection)
        try:
            accepted = verify_assignment(
                payload,
                director=self._roots.trusted(),
                device_id=self._device_id,
                now=self._trusted_clock.now(connection),
                accepted=before,
                lowest=lowest_mark(connection),
                lowest_document=lowest_document(connection),
            )
        except TrustError as error:
            self._refuse(connection, payload, str(error))
            return _Verdict.REFUSED
        if accepted is before:
            return _Verdict.KNOWN
        assignment.store(connection, accepted)
        if before is not None and accepted.assignment is before.assignment:
            return _Verdict.KNOWN
        self._announce(connection, accepted)
        return _Verdict.ACCEPTED

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
        detail = self._budget.spend(reason)
        if detail is not None:
            self._append(connection, EventKind.ASSIGNMENT_REFUSED, detail)

    def _append(self, connection: sqlite3.Connection, kind: EventKind, detail: str) -> None:
        at_ms = self._clock.now_ms()
        self._outbox.append_event(connection, EventDraft(at_ms=at_ms, kind=kind, detail=detail))

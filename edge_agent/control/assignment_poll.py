"""Asks for the assignment over HTTPS while there is no connection to the broker."""

import asyncio
import logging
import random
from collections.abc import Callable

from edge_agent.control import assignment
from edge_agent.control.database import Database
from edge_agent.control.link import Link
from edge_agent.control.server_client import (
    ReleaseServer,
    ServerRefusedError,
    ServerUnreachableError,
)
from fleet_protocol.assignments import MAX_ASSIGNMENT_BYTES, POLL_ROUTE, etag

logger = logging.getLogger(__name__)

_NOTHING_NEW = frozenset({204, 304})
_JITTER = 0.2


class AssignmentPoll:
    """Polls at intervals, which the answer 304 keeps cheap; the broker is faster where it is."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        link: Link,
        server: ReleaseServer,
        database: Database,
        deliver: Callable[[bytes], None],
        interval_s: float,
        randomness: random.Random,
    ) -> None:
        """Make it; nothing is sent yet.

        Args:
            link: the connection to the broker, in whose absence this polls.
            server: where to ask.
            database: holds the assignment that was accepted last.
            deliver: takes a document, which is not verified yet.
            interval_s: between two polls, give or take a fifth.
            randomness: keeps devices apart that lost the broker together.
        """
        self._link = link
        self._server = server
        self._database = database
        self._deliver = deliver
        self._interval_s = interval_s
        self._random = randomness

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s * self._random.uniform(1 - _JITTER, 1 + _JITTER))
            if self._link.connected:
                continue
            try:
                await self.poll()
            except (ServerUnreachableError, ServerRefusedError) as error:
                logger.info("assignment_not_polled", extra={"reason": str(error)})

    async def poll(self) -> None:
        """Ask once.

        Raises:
            ServerUnreachableError: no answer, or it broke off.
            ServerRefusedError: the server refuses this device.
        """
        accepted = await self._database.transact(assignment.load)
        held = etag(accepted.document_sha256) if accepted is not None else None
        document = await asyncio.to_thread(self._ask, held)
        if document is not None:
            self._deliver(document)

    def _ask(self, held: str | None) -> bytes | None:
        headers = {"If-None-Match": held} if held is not None else {}
        content = bytearray()
        try:
            with self._server.open(POLL_ROUTE, headers) as body:
                for chunk in body.chunks():
                    content += chunk
                    if len(content) > MAX_ASSIGNMENT_BYTES:
                        raise ServerUnreachableError("the server sends no end of an assignment")
        except ServerRefusedError as error:
            if error.status in _NOTHING_NEW:
                return None
            raise
        return bytes(content)

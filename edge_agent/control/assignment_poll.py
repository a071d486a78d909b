"""Asks for the assignment over HTTPS while there is no connection to the broker."""

import asyncio
import random
from collections.abc import Callable

from edge_agent.control import assignment
from edge_agent.control.database import Database
from edge_agent.control.https_poll import HttpsPoll
from edge_agent.control.link import Link
from edge_agent.control.server_client import ReleaseServer, ServerRefusedError
from fleet_protocol.assignments import MAX_ASSIGNMENT_BYTES, POLL_ROUTE, etag

_NOTHING_NEW = frozenset({204, 304})


class AssignmentPoll(HttpsPoll):
    """Polls for a document other than the accepted one, which the answer 304 keeps cheap."""

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
        """Make it as an `HttpsPoll`.

        Args:
            link: the connection to the broker.
            server: where to ask.
            database: holds the assignment that was accepted last.
            deliver: takes a document, which is not verified yet.
            interval_s: between two polls.
            randomness: keeps devices apart.
        """
        super().__init__(
            what="assignment",
            link=link,
            server=server,
            interval_s=interval_s,
            randomness=randomness,
        )
        self._database = database
        self._deliver = deliver

    async def poll(self) -> None:
        """Ask once."""
        accepted = await self._database.transact(assignment.load)
        held = {} if accepted is None else {"If-None-Match": etag(accepted.document_sha256)}
        try:
            document = await asyncio.to_thread(self._read, POLL_ROUTE, MAX_ASSIGNMENT_BYTES, held)
        except ServerRefusedError as error:
            if error.status in _NOTHING_NEW:
                return
            raise
        self._deliver(document)

"""Sends answers to the server, each until it is committed there, in the order of their commands."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from edge_agent.control.backoff import Backoff
from edge_agent.control.commands import book
from edge_agent.control.database import Database
from edge_agent.control.pulse import Pulse
from edge_agent.control.server_client import ServerRefusedError, ServerUnreachableError
from fleet_protocol import command_answers

logger = logging.getLogger(__name__)

Post = Callable[[str, bytes], object]
"""Sends JSON to a path of the server; raises what `FleetServer.post` raises."""

_NEVER_TAKEN = frozenset({400, 404, 409, 413, 422})
"""The server has read the answer and does not want it: sending it again changes nothing."""


class Answers:
    """The task that sends answers."""

    def __init__(
        self, *, database: Database, answered: Pulse, post: Post, backoff: Backoff
    ) -> None:
        self._database = database
        self._answered = answered
        self._post = post
        self._backoff = backoff

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            StoreError: the database refused.
        """
        while True:
            seen = self._answered.count
            waits = not await self.send_all()
            if not waits:
                self._backoff.reset()
            await self._answered.changed(seen, timeout_s=self._backoff.next_s() if waits else None)

    async def send_all(self) -> bool:
        """Send what is there; says whether nothing is left."""
        while True:
            found = await self._database.transact(book.next_answer)
            if found is None:
                return True
            position, content = found
            try:
                await asyncio.to_thread(self._post, command_answers.ROUTE, content)
            except ServerUnreachableError as error:
                logger.info("answer_waits", extra={"reason": str(error)})
                return False
            except ServerRefusedError as error:
                if error.status not in _NEVER_TAKEN:
                    logger.warning("answer_waits", extra={"reason": str(error)})
                    return False
                logger.warning("answer_not_taken", extra={"reason": str(error)})
            await self._database.transact(partial(book.forget, position=position))
            self._answered.bump()  # there may be room for another command

"""Asks for the mailbox over HTTPS while there is no connection to the broker."""

import asyncio
import logging
import random
from collections.abc import Callable

from edge_agent.control.link import Link
from edge_agent.control.server_client import (
    ReleaseServer,
    ServerRefusedError,
    ServerUnreachableError,
)
from fleet_protocol.commands import MAX_MAILBOX_BYTES, ROUTE

logger = logging.getLogger(__name__)

_JITTER = 0.2


class MailboxPoll:
    """Polls at intervals; the broker is faster where it is."""

    def __init__(
        self,
        *,
        link: Link,
        server: ReleaseServer,
        deliver: Callable[[bytes], None],
        interval_s: float,
        randomness: random.Random,
    ) -> None:
        """Make it; nothing is sent yet.

        Args:
            link: the connection to the broker, in whose absence this polls.
            server: where to ask.
            deliver: takes a mailbox, of which nothing is verified yet.
            interval_s: between two polls, give or take a fifth.
            randomness: keeps devices apart that lost the broker together.
        """
        self._link = link
        self._server = server
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
                self._deliver(await asyncio.to_thread(self.ask))
            except (ServerUnreachableError, ServerRefusedError) as error:
                logger.info("mailbox_not_polled", extra={"reason": str(error)})

    def ask(self) -> bytes:
        """Return the mailbox as the server has it; blocks.

        Raises:
            ServerUnreachableError: no answer, or it broke off.
            ServerRefusedError: the server refuses this device.
        """
        content = bytearray()
        with self._server.open(ROUTE, {}) as body:
            for chunk in body.chunks():
                content += chunk
                if len(content) > MAX_MAILBOX_BYTES:
                    raise ServerUnreachableError("the server sends no end of a mailbox")
        return bytes(content)

"""Asks for the mailbox over HTTPS while there is no connection to the broker."""

import asyncio
import random
from collections.abc import Callable

from edge_agent.control.https_poll import HttpsPoll
from edge_agent.control.link import Link
from edge_agent.control.server_client import ReleaseServer
from fleet_protocol.commands import MAX_MAILBOX_BYTES, ROUTE


class MailboxPoll(HttpsPoll):
    """Polls for the mailbox."""

    def __init__(
        self,
        *,
        link: Link,
        server: ReleaseServer,
        deliver: Callable[[bytes], None],
        interval_s: float,
        randomness: random.Random,
    ) -> None:
        """Make it as an `HttpsPoll`.

        Args:
            link: the connection to the broker.
            server: where to ask.
            deliver: takes a mailbox, of which nothing is verified yet.
            interval_s: between two polls.
            randomness: keeps devices apart.
        """
        super().__init__(
            what="mailbox", link=link, server=server, interval_s=interval_s, randomness=randomness
        )
        self._deliver = deliver

    async def poll(self) -> None:
        """Ask once."""
        self._deliver(await asyncio.to_thread(self.ask))

    def ask(self) -> bytes:
        """Return the mailbox as the server has it; blocks.

        Raises:
            ServerUnreachableError: no answer, or it broke off.
            ServerRefusedError: the server refuses this device.
        """
        return self._read(ROUTE, MAX_MAILBOX_BYTES)

"""Asks the server over HTTPS, at intervals, for what the broker brings while it is connected.

What is asked for, and what becomes of it, is said by the kinds of poll that are made of this.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from edge_agent.control.link import Link
from edge_agent.control.server_client import (
    ReleaseServer,
    ServerRefusedError,
    ServerUnreachableError,
)

logger = logging.getLogger(__name__)

_JITTER = 0.2


class HttpsPoll(ABC):
    """Polls while there is no connection to the broker, which is faster where it is."""

    def __init__(
        self,
        *,
        what: str,
        link: Link,
        server: ReleaseServer,
        interval_s: float,
        randomness: random.Random,
    ) -> None:
        """Make it; nothing is sent yet.

        Args:
            what: is asked for, one word for log and messages.
            link: the connection to the broker, in whose absence this polls.
            server: where to ask.
            interval_s: between two polls, give or take a fifth.
            randomness: keeps devices apart that lost the broker together.
        """
        self._what = what
        self._link = link
        self._server = server
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
                logger.info("not_polled", extra={"what": self._what, "reason": str(error)})

    @abstractmethod
    async def poll(self) -> None:
        """Ask once, and hand on what is new.

        Raises:
            ServerUnreachableError: no answer, or it broke off.
            ServerRefusedError: the server refuses this device.
        """

    def _read(
        self, route: str, max_bytes: int, headers: Mapping[str, str] = MappingProxyType({})
    ) -> bytes:
        """Return the whole answer of a route; blocks.

        Raises:
            ServerUnreachableError: no answer, it broke off, or it is longer than it may be.
            ServerRefusedError: the server refuses, or has nothing new.
        """
        content = bytearray()
        with self._server.open(route, headers) as body:
            for chunk in body.chunks():
                content += chunk
                if len(content) > max_bytes:
                    raise ServerUnreachableError(f"the answer for the {self._what} has no end")
        return bytes(content)

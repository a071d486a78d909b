"""Publishes the outbox over the link, until each message is acknowledged."""

import logging

from edge_agent.control.clock import Clock
from edge_agent.control.database import Database
from edge_agent.control.link import Link, LinkDownError
from edge_agent.control.outbox import CHANNELS, Message, Outbox
from edge_agent.control.pulse import first_change
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Ack, decode

logger = logging.getLogger(__name__)

_CONGESTED_PAUSE_S = 1.0


class Sender:
    """Sends what waits, again after each reconnect and after a time without acknowledgement."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        link: Link,
        clock: Clock,
        resend_after_s: float = 30.0,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._link = link
        self._clock = clock
        self._resend_after_s = resend_after_s

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            seen = self._link.state.count
            if self._link.connected:
                await self._send_over_one_connection(self._link.connection)
            else:
                await self._link.state.changed(seen)

    async def _send_over_one_connection(self, connection: int) -> None:
        published_s: dict[int, float] = {}
        while True:
            link_seen, seen = self._link.state.count, self._database.changed.count
            if not self._link.connected or self._link.connection != connection:
                return
            messages = await self._database.transact(self._outbox.take)
            waiting = {message.position for message in messages}
            published_s = {at: s for at, s in published_s.items() if at in waiting}
            timeout_s = self._resend_after_s
            try:
                for message in messages:
                    self._publish_if_due(message, published_s)
            except LinkDownError as error:
                logger.debug("outbox_waits", extra={"reason": str(error)})
                timeout_s = _CONGESTED_PAUSE_S
            await first_change(
                (self._database.changed, seen),
                (self._link.state, link_seen),
                timeout_s=self._until_resend_s(published_s, timeout_s),
            )

    def _publish_if_due(self, message: Message, published_s: dict[int, float]) -> None:
        now_s = self._clock.monotonic_s()
        before_s = published_s.get(message.position)
        if before_s is None or now_s - before_s >= self._resend_after_s:
            self._link.publish(CHANNELS[message.kind], message.payload)
            published_s[message.position] = now_s

    def _until_resend_s(self, published_s: dict[int, float], longest_s: float) -> float:
        oldest_s = min(published_s.values(), default=self._clock.monotonic_s())
        due_s = oldest_s + self._resend_after_s - self._clock.monotonic_s()
        return max(0.05, min(longest_s, due_s))

    async def acknowledged(self, payload: bytes) -> None:
        """Delete what the server says it has committed; a malformed message changes nothing."""
        try:
            ack = decode(payload, Ack)
        except ProtocolError as error:
            logger.warning("ack_malformed", extra={"reason": str(error)})
            return
        await self._database.transact(lambda connection: self._outbox.acknowledge(connection, ack))

"""Publishes the outbox over the link, until each message is acknowledged.

When what goes out is `edge_agent.control.flight`'s to say.
"""

import logging
from collections.abc import Sequence

from edge_agent.control.clock import Clock
from edge_agent.control.database import Database
from edge_agent.control.flight import Flight
from edge_agent.control.link import Link, LinkDownError
from edge_agent.control.outbox import CHANNELS, Message, Outbox
from edge_agent.control.pulse import Pulse, first_change
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Ack, decode

logger = logging.getLogger(__name__)

_CONGESTED_PAUSE_S = 1.0
_SHORTEST_PAUSE_S = 0.05


class Sender:
    """Sends what waits, again after each reconnect and when it was probably lost."""

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
        self._flight: Flight | None = None
        self._heard = Pulse()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            seen = self._link.state.count
            if self._link.connected:
                await self._send_over_one_connection(self._link.connection)
            else:
                await self._link.state.changed(seen)

    async def _send_over_one_connection(self, connection: int) -> None:
        flight = self._flight = Flight(resend_after_s=self._resend_after_s)
        while True:
            link_seen, seen = self._link.state.count, self._database.changed.count
            heard = self._heard.count
            if not self._link.connected or self._link.connection != connection:
                return
            messages = await self._database.transact(self._outbox.take)
            timeout_s = self._resend_after_s
            try:
                self._publish_due(messages, flight)
            except LinkDownError as error:
                logger.debug("outbox_waits", extra={"reason": str(error)})
                timeout_s = _CONGESTED_PAUSE_S
            overdue_s = flight.overdue_in_s(self._clock.monotonic_s())
            await first_change(
                (self._database.changed, seen),
                (self._link.state, link_seen),
                (self._heard, heard),
                timeout_s=max(_SHORTEST_PAUSE_S, min(timeout_s, overdue_s)),
            )

    def _publish_due(self, messages: Sequence[Message], flight: Flight) -> None:
        now_s = self._clock.monotonic_s()
        by_position = {message.position: message for message in messages}
        streams = {position: message.stream for position, message in by_position.items()}
        for position in flight.due(streams, now_s):
            message = by_position[position]
            self._link.publish(CHANNELS[message.kind], message.payload)
            flight.published(position, message.stream, now_s)

    def heard(self) -> None:
        """Know that the server spoke: what has had no answer for a while was perhaps lost."""
        if self._flight is not None:
            self._flight.heard(self._clock.monotonic_s())
            self._heard.bump()

    async def acknowledged(self, payload: bytes) -> None:
        """Delete what the server says it has committed; a malformed message changes nothing."""
        try:
            ack = decode(payload, Ack)
        except ProtocolError as error:
            logger.warning("ack_malformed", extra={"reason": str(error)})
            return
        if not await self._database.transact(lambda store: self._outbox.acknowledge(store, ack)):
            self.heard()

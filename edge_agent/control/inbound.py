"""Takes what arrived over the link to those whom it concerns, one message at a time."""

from edge_agent.control.assignment_desk import AssignmentDesk
from edge_agent.control.link import Link
from edge_agent.control.sender import Sender


class Inbound:
    """Empties the link's mailbox."""

    def __init__(self, *, link: Link, desk: AssignmentDesk, sender: Sender) -> None:
        self._link = link
        self._desk = desk
        self._sender = sender
        self._undelivered: bytes | None = None

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            seen = self._link.received.count
            await self.deliver()
            await self._link.received.changed(seen)

    async def deliver(self) -> None:
        """Deliver all that has arrived.

        Raises:
            StoreError: the database refused. The assignment is kept for the next call; an
                acknowledgement comes again with the next resend.
        """
        while (payload := self._link.take_ack()) is not None:
            await self._sender.acknowledged(payload)
        newest = self._link.take_assignment()
        if newest is not None:
            self._undelivered = newest
        if self._undelivered is not None:
            await self._desk.receive(self._undelivered)
            self._undelivered = None

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

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            seen = self._link.received.count
            await self.deliver()
            await self._link.received.changed(seen)

    async def deliver(self) -> None:
        """Deliver all that has arrived.

        Raises:
            StoreError: the database refused; the broker's copy of the assignment comes again with
                the next connection, an acknowledgement with the next resend.
        """
        while (payload := self._link.take_ack()) is not None:
            await self._sender.acknowledged(payload)
        if (document := self._link.take_assignment()) is not None:
            await self._desk.receive(document)

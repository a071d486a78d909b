"""Takes what arrived over the link to those whom it concerns, one message at a time."""

import asyncio
import contextlib

from edge_agent.control.assignment_desk import AssignmentDesk
from edge_agent.control.backoff import Backoff
from edge_agent.control.commands.desk import CommandDesk
from edge_agent.control.link import Link
from edge_agent.control.sender import Sender


class Inbound:
    """Empties the link's mailbox."""

    def __init__(
        self,
        *,
        link: Link,
        desk: AssignmentDesk,
        commands: CommandDesk,
        sender: Sender,
        backoff: Backoff,
    ) -> None:
        self._link = link
        self._desk = desk
        self._commands = commands
        self._sender = sender
        self._backoff = backoff
        self._undelivered: bytes | None = None
        self._polled: bytes | None = None

    def offer(self, assignment: bytes) -> None:
        """Take an assignment that came another way than over the link."""
        self._polled = assignment
        self._link.received.bump()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            seen = self._link.received.count
            await self.deliver()
            again_s = None if self._undelivered is None else self._backoff.next_s()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await self._link.received.changed(seen)

    async def deliver(self) -> None:
        """Deliver all that has arrived; an assignment that could not be judged yet is kept.

        Raises:
            StoreError: the database refused. The assignment is kept for the next call; an
                acknowledgement comes again with the next resend.
        """
        while (payload := self._link.take_ack()) is not None:
            await self._sender.acknowledged(payload)
        mailbox, assigned = self._link.take_commands(), self._link.take_assignment()
        if mailbox is not None:
            self._commands.offer(mailbox)
        if mailbox is not None or assigned is not None:
            self._sender.heard()  # a server that has come back publishes them anew
        polled, self._polled = self._polled, None
        newest = assigned or polled
        if newest is not None:
            self._undelivered = newest
        if self._undelivered is not None and await self._desk.receive(self._undelivered):
            self._undelivered = None
            self._backoff.reset()

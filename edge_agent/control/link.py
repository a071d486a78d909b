"""The link to the fleet as the rest of control sees it, and the mailbox behind it.

What is kept of the inbound side is bounded: the newest assignment, the newest list of commands and
a few acknowledgements, since a lost one of those only causes a resend.
"""

from collections import deque
from typing import Protocol

from edge_agent.control.pulse import Pulse
from edge_agent.errors import AgentError
from fleet_protocol.topics import Channel

_MAX_ACKS = 256


class LinkDownError(AgentError):
    """There is no connection to the broker now; the caller tries again after the next one."""


class Link(Protocol):
    """What the rest of control sees of the connection.

    Attributes:
        state: bumped at every connection made or lost.
        received: bumped when something arrived.
    """

    state: Pulse
    received: Pulse

    @property
    def connected(self) -> bool:
        """Whether messages can be published now."""

    @property
    def connection(self) -> int:
        """Number of the connection, higher for each new one."""

    def publish(self, channel: Channel, payload: bytes) -> None:
        """Hand a message to the connection.

        Raises:
            LinkDownError: there is none, or it does not take more now.
        """

    def take_assignment(self) -> bytes | None:
        """Return the newest assignment that arrived since the last call, or None."""

    def take_ack(self) -> bytes | None:
        """Return the next acknowledgement that arrived, or None."""

    def take_commands(self) -> bytes | None:
        """Return the newest list of open commands that arrived since the last call, or None."""


class Mailbox:
    """What arrived and was not taken yet; bounded."""

    def __init__(self) -> None:
        self.received = Pulse()
        self._assignment: bytes | None = None
        self._commands: bytes | None = None
        self._acks: deque[bytes] = deque(maxlen=_MAX_ACKS)

    def put(self, channel: Channel, payload: bytes) -> None:
        """Keep a message: newest assignment, newest list of commands, newest acknowledgements."""
        if channel is Channel.ASSIGNMENT:
            self._assignment = payload
        elif channel is Channel.COMMANDS:
            self._commands = payload
        elif channel is Channel.ACK:
            self._acks.append(payload)
        self.received.bump()

    def take_assignment(self) -> bytes | None:
        """Return the newest assignment that arrived since the last call, or None."""
        payload, self._assignment = self._assignment, None
        return payload

    def take_ack(self) -> bytes | None:
        """Return the next acknowledgement that arrived, or None."""
        return self._acks.popleft() if self._acks else None

    def take_commands(self) -> bytes | None:
        """Return the newest list of open commands that arrived since the last call, or None."""
        payload, self._commands = self._commands, None
        return payload

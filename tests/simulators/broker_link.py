"""The connection to a broker that a test makes, breaks and listens to."""

from edge_agent.control.link import LinkDownError, Mailbox
from edge_agent.control.pulse import Pulse
from fleet_protocol.topics import Channel


class SimulatedLink:
    """Implements the agent's `Link`.

    Attributes:
        published: everything that was handed to a connection, in order.
    """

    def __init__(self) -> None:
        self.state = Pulse()
        self.published: list[tuple[Channel, bytes]] = []
        self.congested = False
        self._mailbox = Mailbox()
        self.received = self._mailbox.received
        self._up = False
        self._connection = 0

    @property
    def connected(self) -> bool:
        return self._up

    @property
    def connection(self) -> int:
        return self._connection

    def connect(self) -> None:
        self._up = True
        self._connection += 1
        self.state.bump()

    def disconnect(self) -> None:
        self._up = False
        self.state.bump()

    def publish(self, channel: Channel, payload: bytes) -> None:
        if not self._up or self.congested:
            raise LinkDownError("the simulated broker does not listen")
        self.published.append((channel, payload))

    def arrives(self, channel: Channel, payload: bytes) -> None:
        self._mailbox.put(channel, payload)

    def take_assignment(self) -> bytes | None:
        return self._mailbox.take_assignment()

    def take_ack(self) -> bytes | None:
        return self._mailbox.take_ack()

    def take_commands(self) -> bytes | None:
        return self._mailbox.take_commands()

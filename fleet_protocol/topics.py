"""MQTT topics: the only place that builds or parses one.

Each device owns the prefix ``skerry/v1/<device>/``. The broker lets a device publish on the uplink
channels of its own prefix and subscribe to the downlink channels of its own prefix, nothing else.
"""

from dataclasses import dataclass
from enum import StrEnum

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError

_ROOT = ("skerry", "v1")


class Channel(StrEnum):
    """The last level of a topic. Direction, retention and QoS are in docs/architecture.md."""

    ASSIGNMENT = "assignment"
    REPORTED = "reported"
    TELEMETRY = "telemetry"
    EVENT = "event"
    ACK = "ack"
    COMMANDS = "commands"
    PRESENCE = "presence"


UPLINK = frozenset({Channel.REPORTED, Channel.TELEMETRY, Channel.EVENT, Channel.PRESENCE})
"""What a device publishes."""

DOWNLINK = frozenset({Channel.ASSIGNMENT, Channel.ACK, Channel.COMMANDS})
"""What a device subscribes to."""

RETAINED = frozenset({Channel.ASSIGNMENT, Channel.REPORTED, Channel.PRESENCE, Channel.COMMANDS})
"""What the broker keeps for those who subscribe later."""

QOS = 1
"""Every channel is at-least-once; sequence numbers make it exactly-once where it matters."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One device's channel."""

    device_id: str
    channel: Channel

    def __str__(self) -> str:
        return "/".join((*_ROOT, self.device_id, self.channel))

    @classmethod
    def parse(cls, topic: str) -> "Topic":
        """Read a topic as received.

        Raises:
            ProtocolError: it is not ``skerry/v1/<device>/<channel>``.
        """
        levels = topic.split("/")
        if len(levels) != 4 or tuple(levels[:2]) != _ROOT:  # noqa: PLR2004 (two of the root, device, channel)
            raise ProtocolError(f"topic {topic[:200]!r} is not skerry/v1/<device>/<channel>")
        try:
            channel = Channel(levels[3])
        except ValueError:
            raise ProtocolError(f"topic {topic[:200]!r} names an unknown channel") from None
        return cls(names.device_id(levels[2]), channel)


def all_devices(channel: Channel) -> str:
    """Return the subscription filter for one channel of every device (ingest uses it)."""
    return "/".join((*_ROOT, "+", channel))

"""What comes from devices, decoded: bytes and a topic in, a typed message out."""

from dataclasses import dataclass

from fleet_protocol import messages
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Event, Presence, Reported, TelemetryWindow
from fleet_protocol.topics import Channel, Topic

Content = TelemetryWindow | Event | Reported | Presence

_TYPES: dict[Channel, type[Content]] = {
    Channel.TELEMETRY: TelemetryWindow,
    Channel.EVENT: Event,
    Channel.REPORTED: Reported,
    Channel.PRESENCE: Presence,
}


@dataclass(frozen=True, slots=True)
class Uplink:
    """One message of a device.

    Attributes:
        device_id: from the topic, which the broker ties to the client certificate.
        retained: the broker kept it from earlier, so it does not show that the device lives.
    """

    device_id: str
    content: Content
    retained: bool


def topic_of(text: str) -> Topic:
    """Read a topic on which devices send.

    Raises:
        ProtocolError: it is none.
    """
    topic = Topic.parse(text)
    if topic.channel not in _TYPES:
        raise ProtocolError(f"nothing comes from devices on {topic.channel}")
    return topic


def decode(topic: Topic, payload: bytes, *, retained: bool) -> Uplink:
    """Read a message as it came from the broker.

    Raises:
        ProtocolError: the payload breaks the contract.
    """
    content = messages.decode(payload, _TYPES[topic.channel])
    if isinstance(content, TelemetryWindow | Event):
        messages.check_coverage(content)
    if isinstance(content, TelemetryWindow) and content.start_ms > content.end_ms:
        raise ProtocolError("the window ends before it starts")
    return Uplink(topic.device_id, content, retained)

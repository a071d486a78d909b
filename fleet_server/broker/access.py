"""Who may do what at the broker: a pure table over certificate identity, action and topic.

A device publishes on the uplink channels of its own prefix and subscribes to its own downlink
channels, by exact name. The ingest service hears the uplink of all and speaks on the downlink.
Retained messages exist for the channels of the contract only, so their number is bounded by four
per device.
"""

from dataclasses import dataclass

from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import Topic
from fleet_server.devices.certificates import INGEST_NAME

_INGEST_FILTERS = frozenset(topics.all_devices(channel) for channel in topics.UPLINK)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the client certificate names; ``device_id`` is None for the ingest service."""

    device_id: str | None

    @property
    def is_ingest(self) -> bool:
        """Whether this is the ingest service."""
        return self.device_id is None

    def __str__(self) -> str:
        return self.device_id or INGEST_NAME


def may_use_client_id(identity: Identity, client_id: str) -> bool:
    """Say whether a connection may have this client id: its own name, which nobody else has."""
    if identity.is_ingest:
        return client_id == INGEST_NAME or client_id.startswith(f"{INGEST_NAME}-")
    return client_id == identity.device_id


def may_publish(identity: Identity, topic: str, *, retain: bool) -> bool:
    """Say whether a message (or a will) may be published."""
    parsed = _parsed(topic)
    if parsed is None or (retain and parsed.channel not in topics.RETAINED):
        return False
    if identity.is_ingest:
        return parsed.channel in topics.DOWNLINK
    return parsed.device_id == identity.device_id and parsed.channel in topics.UPLINK


def may_subscribe(identity: Identity, topic_filter: str) -> bool:
    """Say whether a filter may be subscribed to."""
    if identity.is_ingest:
        return topic_filter in _INGEST_FILTERS
    return may_receive(identity, topic_filter)


def may_receive(identity: Identity, topic: str) -> bool:
    """Say whether a message on a topic may be handed to the connection."""
    parsed = _parsed(topic)
    if parsed is None:
        return False
    if identity.is_ingest:
        return parsed.channel in topics.UPLINK
    return parsed.device_id == identity.device_id and parsed.channel in topics.DOWNLINK


def _parsed(topic: str) -> Topic | None:
    try:
        return Topic.parse(topic)
    except ProtocolError:
        return None

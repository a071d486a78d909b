"""The AsyncAPI 3.0 document of the MQTT topics, made of the types that both ends use.

``docs/api`` holds it; a test compares.
"""

import json
from typing import Any

import msgspec

from fleet_protocol import commands, messages, topics
from fleet_protocol.messages import MAX_MESSAGE_BYTES
from fleet_protocol.topics import Channel, Topic

FILE_NAME = "asyncapi.json"
_REFERENCE = "#/components/schemas/{name}"

TYPES: dict[Channel, type[msgspec.Struct]] = {
    Channel.REPORTED: messages.Reported,
    Channel.TELEMETRY: messages.TelemetryWindow,
    Channel.EVENT: messages.Event,
    Channel.ACK: messages.Ack,
    Channel.PRESENCE: messages.Presence,
    Channel.COMMANDS: commands.Mailbox,
}
"""What travels on each channel; an assignment is signed TUF metadata and described in words."""

_ASSIGNMENT = {
    "name": "assignment",
    "title": "Assignment",
    "contentType": "application/json",
    "summary": "TUF targets metadata, signed by the director's key; see fleet_protocol.assignments",
    "payload": {"type": "object", "required": ["signatures", "signed"]},
}


def document() -> dict[str, Any]:
    """Return the document."""
    _, schemas = msgspec.json.schema_components(TYPES.values(), ref_template=_REFERENCE)
    device = "{device_id}"
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Skerry: devices and their fleet over MQTT",
            "version": "1",
            "description": "MQTT 3.1.1 over TLS with client certificates; a device uses its own "
            f"topics only. No message has more than {MAX_MESSAGE_BYTES} bytes.",
        },
        "channels": {
            channel.value: {
                "address": "/".join((*str(Topic("x", channel)).split("/")[:2], device, channel)),
                "parameters": {"device_id": {"description": "The device's name, a DNS label."}},
                "messages": {channel.value: {"$ref": f"#/components/messages/{channel.value}"}},
                "bindings": {"mqtt": {}},
            }
            for channel in Channel
        },
        "operations": {channel.value: _operation(channel) for channel in Channel},
        "components": {
            "messages": {channel.value: _message(channel) for channel in Channel},
            "schemas": schemas,
        },
    }


def _operation(channel: Channel) -> dict[str, Any]:
    """Describe a channel as the device sees it."""
    return {
        "action": "send" if channel in topics.UPLINK else "receive",
        "channel": {"$ref": f"#/channels/{channel.value}"},
        "bindings": {"mqtt": {"qos": topics.QOS, "retain": channel in topics.RETAINED}},
    }


def _message(channel: Channel) -> dict[str, Any]:
    if channel not in TYPES:
        return _ASSIGNMENT
    name = TYPES[channel].__name__
    return {
        "name": channel.value,
        "title": name,
        "contentType": "application/json",
        "payload": {"$ref": _REFERENCE.format(name=name)},
    }


def encode() -> str:
    """Return the document as it is committed."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"

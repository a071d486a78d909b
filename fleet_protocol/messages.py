"""The messages between a device and its fleet server, as JSON over MQTT or HTTPS.

Each message carries ``schema``; a reader accepts the schemas it knows and ignores fields it does
not know, so that either side may be upgraded first. Telemetry and events also carry (stream,
sequence): the outbox numbers them without gaps, the server stores each number once.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

import msgspec

from fleet_protocol.errors import ProtocolError
from fleet_protocol.histogram import Count, Histogram
from fleet_protocol.names import DeviceId, Family, Version
from fleet_protocol.remote_settings import NO_CONFIGURATION, ConfigurationStatus
from fleet_protocol.unreadable import problem
from fleet_protocol.update_states import UpdateState

MAX_MESSAGE_BYTES = 256 * 1024
"""No message is larger; the broker and both ends refuse one that is."""

StreamId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[a-z]{1,16}-[0-9a-f]{16}\Z",
        description="a word, a hyphen and 16 lower-case hexadecimal digits",
    ),
]
"""``<kind>-<random>``: a wiped device starts a new stream instead of reusing sequence numbers."""

Sequence = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
MAX_COVERED = 1_000_000
"""Sequence numbers that one message stands for at most: years of windows, merged into one."""

UnixMs = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
ShortText = Annotated[str, msgspec.Meta(max_length=200)]
MAX_CHOICE = 600
MAX_DETAIL = 4000
LongText = Annotated[str, msgspec.Meta(max_length=MAX_DETAIL)]


class ErrorKind(StrEnum):
    """Why an inference call failed, as counted on the device."""

    BAD_REQUEST = "bad_request"
    """The caller's fault: malformed body, wrong shape or datatype."""
    BACKEND = "backend"
    """The runtime failed on a well-formed call; this one counts against a release."""
    REFUSED = "refused"
    """Well-formed but not run: the queue was full or the call's deadline could not be met."""


class ModelWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What one release of one family did on the device in the window."""

    family: Family
    version: Version
    variant: ShortText
    requests: Count
    """Calls answered, with or without success."""
    errors: dict[ErrorKind, Count] = {}
    latency_us: Histogram = Histogram()
    """In microseconds, from the last byte of the request to the answer handed to the socket."""
    classes: Annotated[dict[ShortText, Count], msgspec.Meta(max_length=1024)] = {}
    """How often each label won; empty for models without labels."""


class SystemWindow(msgspec.Struct, frozen=True, kw_only=True):
    """How the machine was in the window."""

    cpu_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    """Mean over all cores; None where it could not be measured."""
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    runtime_resident_bytes: Count | None = None
    temperature_celsius: float | None = None
    """The hottest thermal zone; None on a machine without one."""


class TelemetryWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One closed time window. Windows of a stream follow each other without overlap."""

    schema: Literal[1] = 1
    stream: StreamId
    sequence: Sequence
    covers_from: Sequence
    """First sequence number that this window stands for: lower than ``sequence`` when a full
    outbox merged several windows into this coarser one."""
    start_ms: UnixMs
    end_ms: UnixMs
    models: Annotated[list[ModelWindow], msgspec.Meta(max_length=256)] = []
    system: SystemWindow = SystemWindow()


class EventKind(StrEnum):
    """What happened on a device, once."""

    ENROLLED = "enrolled"
    ASSIGNMENT_ACCEPTED = "assignment_accepted"
    ASSIGNMENT_REFUSED = "assignment_refused"
    UPDATE_STATE = "update_state"
    DELIVERY_REFUSED = "delivery_refused"
    """What the server handed out was not taken: metadata, a file, or its pace."""
    METADATA_STALE = "metadata_stale"
    """What is known of the fleet has expired and nothing newer could be verified: a freeze."""
    METADATA_FRESH = "metadata_fresh"
    """The end of such a time."""
    RELEASE_WITHDRAWN = "release_withdrawn"
    """What serves was withdrawn by its publisher; it goes on serving."""
    MODEL_DAMAGED = "model_damaged"
    """The file of a committed release is gone, rotten or cannot be read; it is fetched anew."""
    MODEL_REPAIRED = "model_repaired"
    """The end of such a time."""
    RUNTIME_RESTARTED = "runtime_restarted"
    OUTBOX_DROPPED = "outbox_dropped"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened on the device; ``detail`` is a sentence for the operator."""

    schema: Literal[1] = 1
    stream: StreamId
    sequence: Sequence
    covers_from: Sequence
    at_ms: UnixMs
    kind: EventKind
    detail: LongText
    family: Family | None = None
    version: Version | None = None
    state: UpdateState | None = None


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """The server has committed everything of the stream up to and with ``sequence``."""

    schema: Literal[1] = 1
    stream: StreamId
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Online while connected; the broker publishes the will with ``online=False``."""

    schema: Literal[1] = 1
    online: bool


class RunningModel(msgspec.Struct, frozen=True, kw_only=True):
    """A release that answers calls on the device now."""

    family: Family
    version: Version
    variant: ShortText
    backend: ShortText
    accelerator: ShortText
    committed: bool
    """False during probation."""
    choice: Annotated[str, msgspec.Meta(max_length=MAX_CHOICE)] = ""
    """Why this variant and accelerator, and not another of the release."""


class UpdateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the newest update of a family stands."""

    family: Family
    version: Version
    state: UpdateState
    detail: LongText = ""
    """The reason of a failure or of a roll-back."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the device is and can run."""

    machine: ShortText
    """As ``uname -m`` has it."""
    cpu_count: Count
    memory_total_bytes: Count | None = None
    backends: dict[ShortText, ShortText] = {}
    """Backend name to its library's version."""
    accelerators: list[ShortText] = []


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the device, retained: the whole of it, each time."""

    schema: Literal[1] = 1
    at_ms: UnixMs
    agent_version: ShortText
    assignment_version: Annotated[int, msgspec.Meta(ge=0)]
    runtime_up: bool
    running: Annotated[list[RunningModel], msgspec.Meta(max_length=256)] = []
    updates: Annotated[list[UpdateStatus], msgspec.Meta(max_length=256)] = []
    alarms: Annotated[list[LongText], msgspec.Meta(max_length=16)] = []
    """What the operator should look after now, such as news that somebody may be keeping back."""
    capabilities: Capabilities
    configuration: ConfigurationStatus = NO_CONFIGURATION
    """Which settings of the fleet the agent works with."""
    command_sequence: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Of the last command that was taken, 0 before the first; none below it will be."""


def check_coverage(message: TelemetryWindow | Event) -> None:
    """Accept the sequence numbers that a message stands for if they are in order and bounded.

    Raises:
        ProtocolError: they are not.
    """
    if message.covers_from > message.sequence:
        raise ProtocolError(
            f"covers_from {message.covers_from} lies above sequence {message.sequence}"
        )
    covered = message.sequence - message.covers_from + 1
    if covered > MAX_COVERED:
        raise ProtocolError(
            f"the message stands for {covered} sequence numbers, at most {MAX_COVERED} are taken"
        )


class EnrollRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /device/v1/enroll``."""

    token: Annotated[str, msgspec.Meta(max_length=8192)]
    csr_pem: Annotated[str, msgspec.Meta(max_length=16384)]


class EnrollResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate and where the broker listens."""

    device_id: DeviceId
    certificate_pem: Annotated[str, msgspec.Meta(max_length=65536)]
    mqtt_host: ShortText
    mqtt_port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /device/v1/certificate``; the request is signed with the present key."""

    csr_pem: Annotated[str, msgspec.Meta(max_length=16384)]
    """For the present key, or for a new one."""


class RenewResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The new certificate; the old one stays valid until the new one is confirmed."""

    certificate_pem: Annotated[str, msgspec.Meta(max_length=65536)]


class ConfirmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /device/v1/certificate/confirm``; signed with the new certificate's key.

    It says that the device has stored key and certificate durably; an older key is refused from
    then on.
    """

    serial: Annotated[
        str,
        msgspec.Meta(
            pattern=r"\A[0-9a-f]{1,40}\Z", description="1 to 40 lower-case hexadecimal digits"
        ),
    ]
    """Serial number of the new certificate, in lower-case hexadecimal digits."""


KeyId = Annotated[
    str, msgspec.Meta(pattern=r"\A[0-9a-f]{40}\Z", description="40 lower-case hexadecimal digits")
]
"""Names the key of a CA as certificates do (RFC 5280, 4.2.1.2, method 1), in hexadecimal."""

MAX_FLEET_CAS = 8


class FleetCa(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet CA that follows another one, with the proof.

    Attributes:
        certificate_pem: its own certificate, signed by itself.
        link_pem: a certificate of the same name and key, signed by the fleet CA before it.
    """

    certificate_pem: Annotated[str, msgspec.Meta(max_length=8192)]
    link_pem: Annotated[str, msgspec.Meta(max_length=8192)]


class AuthoritiesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /device/v1/authorities``: which fleet CAs the device trusts."""

    trusted: Annotated[list[KeyId], msgspec.Meta(max_length=2 * MAX_FLEET_CAS)]


class Authorities(msgspec.Struct, frozen=True, kw_only=True):
    """Who issues certificates of devices now, and which fleet CAs follow the first one.

    Attributes:
        device_ca: key of the CA that issues; a device whose certificate is of another one renews.
        fleet_cas: the oldest first. A device trusts one for its proof, not for this answer.
    """

    device_ca: KeyId
    fleet_cas: Annotated[list[FleetCa], msgspec.Meta(max_length=MAX_FLEET_CAS)] = []


Message = TypeVar("Message", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """Return the JSON of a message.

    Raises:
        ProtocolError: it is larger than `MAX_MESSAGE_BYTES`.
    """
    payload = msgspec.json.encode(message)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"{_called(type(message))} has {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} travel"
        )
    return payload


def decode(payload: bytes, message_type: type[Message]) -> Message:
    """Read a message of a known type.

    Raises:
        ProtocolError: it is too large, not JSON, or not of that type; the text names the field.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"{_called(message_type)} has {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} travel"
        )
    try:
        return msgspec.json.decode(payload, type=message_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = problem(error, message_type)
        raise ProtocolError(f"not {_called(message_type)}: {reason}") from error


def _called(message_type: type[msgspec.Struct]) -> str:
    """Return what people call a message: the words of its type's name, with an article."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", message_type.__name__).lower()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

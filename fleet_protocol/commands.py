"""Commands: what a fleet may ask of a device, how that is signed, and what the device answers.

A command travels as a DSSE envelope (secure-systems-lab/dsse, version 1.0) whose payload is the
JSON of `Command`, signed by the key that the director's root names for assignments. The open
commands of a device are its mailbox. The kinds are a fixed list of types: none names a file, an
address or a program. See docs/decisions/0017-commands-are-signed-once-and-answered-once.md.
"""

from base64 import b64decode
from typing import Annotated, Literal

import msgspec

from fleet_protocol.command_answers import CommandId
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import UnixMs
from fleet_protocol.names import DeviceId, Family
from fleet_protocol.remote_settings import (
    ConfigurationVersion,
    LogLevel,
    NameOrNone,
    RemoteSettings,
)
from fleet_protocol.unreadable import problem

ROUTE = "/device/v1/commands"
"""Where a device asks for its mailbox without MQTT."""

PAYLOAD_TYPE = "application/vnd.skerry.command+json"
MAX_PAYLOAD_BYTES = 8 * 1024
MAX_OPEN = 8
"""Commands of one device that wait for their answer."""

MAX_MAILBOX_BYTES = 128 * 1024
MAX_LIFETIME_S = 24 * 3600
MAX_SEQUENCE = 2**53
MAX_LOG_LINES = 20_000

Sequence = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQUENCE)]


class _Action(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """What is to be done."""


class Diagnostics(_Action, frozen=True, kw_only=True, tag="diagnostics"):
    """Say how the device is: versions, disk, memory, temperature, clock, connections, updates."""


class Logs(_Action, frozen=True, kw_only=True, tag="logs"):
    """Send lines of the agent's own log, redacted, the newest ones first if there are too many.

    Attributes:
        since_ms: no line from before.
        level: no line of less weight.
        lines: how many at most.
        process: whose; empty for all.
    """

    since_ms: UnixMs = 0
    level: LogLevel = "debug"
    lines: Annotated[int, msgspec.Meta(ge=1, le=MAX_LOG_LINES)] = 1000
    process: Literal["", "control", "runtime", "supervisor"] = ""


class Bench(_Action, frozen=True, kw_only=True, tag="bench"):
    """Time the releases that serve on their golden inputs.

    Attributes:
        family: only this one; None for all.
    """

    family: Family | None = None


class RestartRuntime(_Action, frozen=True, kw_only=True, tag="restart_runtime"):
    """End the runtime process, which starts again with what is committed."""


class Configure(_Action, frozen=True, kw_only=True, tag="configure"):
    """Work with these settings from now on; the fleet's former ones no longer count.

    Attributes:
        name: of the configuration they are from; absent in one that takes all back.
        version: of it.
    """

    name: NameOrNone = ""
    version: ConfigurationVersion
    settings: RemoteSettings


Action = Diagnostics | Logs | Bench | RestartRuntime | Configure
KINDS: dict[str, type[Action]] = {
    "diagnostics": Diagnostics,
    "logs": Logs,
    "bench": Bench,
    "restart_runtime": RestartRuntime,
    "configure": Configure,
}


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command to one device.

    Attributes:
        sequence: higher than that of every earlier command to the device.
        expires_ms: it is not begun after that.
        action: read by `action_of`, so that a kind which this side does not know can be refused
            by its id.
    """

    schema: Literal[1] = 1
    id: CommandId
    device_id: DeviceId
    sequence: Sequence
    issued_ms: UnixMs
    expires_ms: UnixMs
    action: msgspec.Raw


class EnvelopeSignature(msgspec.Struct, frozen=True):
    """A signature of an envelope."""

    keyid: Annotated[str, msgspec.Meta(max_length=200)]
    sig: Annotated[str, msgspec.Meta(max_length=8192)]


class Envelope(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    """A DSSE envelope as JSON; securesystemslib signs and verifies it."""

    payload: Annotated[str, msgspec.Meta(max_length=2 * MAX_PAYLOAD_BYTES)]
    payload_type: Literal["application/vnd.skerry.command+json"]
    signatures: Annotated[list[EnvelopeSignature], msgspec.Meta(min_length=1, max_length=8)]


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """All commands of a device that are open, in the order of their sequence."""

    schema: Literal[1] = 1
    commands: Annotated[list[Envelope], msgspec.Meta(max_length=MAX_OPEN)] = []


def decode_command(payload: bytes) -> Command:
    """Read the payload of a verified envelope.

    Raises:
        ProtocolError: it is no command.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ProtocolError(
            f"a command has {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are read"
        )
    try:
        return msgspec.json.decode(payload, type=Command)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a command: {problem(error, Command)}") from error


def decode_mailbox(payload: bytes) -> Mailbox:
    """Read a mailbox; nothing in it is verified.

    Raises:
        ProtocolError: it is too large, or none.
    """
    if len(payload) > MAX_MAILBOX_BYTES:
        raise ProtocolError(
            f"a mailbox has {len(payload)} bytes, at most {MAX_MAILBOX_BYTES} are read"
        )
    try:
        return msgspec.json.decode(payload, type=Mailbox)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a mailbox: {problem(error, Mailbox)}") from error


def action_of(command: Command) -> Action:
    """Return what a command asks for.

    Raises:
        ProtocolError: this side does not know the kind, or its arguments are wrong.
    """
    return decode_action(bytes(command.action))


def decode_action(content: bytes) -> Action:
    """Read an action.

    Raises:
        ProtocolError: the kind is not known, or its arguments are wrong.
    """
    try:
        kind = msgspec.json.decode(content, type=_Kind).kind
        if kind not in KINDS:
            raise ProtocolError(
                f"there is no command {kind[:40]!r}; there are {', '.join(sorted(KINDS))}"
            )
        action: Action = msgspec.json.decode(content, type=Action)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"the command's arguments are wrong: {problem(error, Action)}"
        ) from error
    return action


def kind_of(action: Action) -> str:
    """Return the name of an action's kind."""
    return next(name for name, kind in KINDS.items() if isinstance(action, kind))


def payload_of(envelope: Envelope) -> bytes:
    """Return an envelope's payload without looking at its signatures.

    Raises:
        ProtocolError: it is not base64.
    """
    try:
        return b64decode(envelope.payload, validate=True)
    except ValueError as error:
        raise ProtocolError(f"not an envelope: {error}") from error


class _Kind(msgspec.Struct):
    kind: str

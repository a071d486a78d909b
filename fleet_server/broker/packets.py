"""Reads MQTT 3.1.1 packets that clients send (OASIS standard, sections 2 and 3): bytes in, no I/O.

Strict: a packet is read to its last byte or refused, so that nothing malformed reaches the broker
behind the gate.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from fleet_server.errors import MalformedError

PROTOCOL_LEVEL = 4
"""MQTT 3.1.1."""

MAX_CONNECT_BYTES = 16 * 1024
MAX_FILTERS = 32


class Kind(IntEnum):
    """Packet types that a client may send with QoS 0 and 1."""

    CONNECT = 1
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    UNSUBSCRIBE = 10
    PINGREQ = 12
    DISCONNECT = 14


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes if the connection breaks."""

    topic: str
    retain: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT packet.

    Attributes:
        level: protocol level; the other fields are read only for `PROTOCOL_LEVEL`.
        keep_alive_s: 0 turns it off.
    """

    level: int
    client_id: str = ""
    keep_alive_s: int = 0
    will: Will | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH packet, less its content."""

    topic: str
    retain: bool


@dataclass(frozen=True, slots=True)
class Other:
    """A well-formed packet of another kind."""

    kind: Kind


_U16 = struct.Struct(">H")
_WILL_FLAG, _WILL_RETAIN, _USERNAME, _PASSWORD = 0x04, 0x20, 0x80, 0x40
_CLEAN_SESSION = 0x02
_FLAGS_AT, _KEEP_ALIVE_AT = 7, 8
"""Offsets in the body of CONNECT of level 4, after ``00 04 M Q T T 04``."""


class _Cursor:
    """Reads fields from the front of a body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._body)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise MalformedError("an MQTT packet ends before its fields do")
        taken, self._at = self._body[self._at : end], end
        return taken

    def number(self) -> int:
        (value,) = _U16.unpack(self.take(2))
        return int(value)

    def binary(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        try:
            value = self.binary().decode()
        except UnicodeDecodeError as error:
            raise MalformedError("an MQTT string is not UTF-8") from error
        if "\x00" in value:
            raise MalformedError("an MQTT string contains NUL")
        return value

    def end(self) -> None:
        if not self.at_end:
            raise MalformedError("an MQTT packet is longer than its fields")


def parse_connect(body: bytes) -> Connect:
    """Read the body of a CONNECT packet.

    Raises:
        MalformedError: it is none.
    """
    cursor = _Cursor(body)
    if cursor.text() not in ("MQTT", "MQIsdp"):
        raise MalformedError("the client does not speak MQTT")
    (level,) = cursor.take(1)
    if level != PROTOCOL_LEVEL:
        return Connect(level)
    (flags,) = cursor.take(1)
    if flags & 0x01 or (not flags & _WILL_FLAG and flags & 0x38) or (flags >> 3) & 3 > 1:
        raise MalformedError("CONNECT has flags that are not allowed here")
    keep_alive_s = cursor.number()
    client_id = cursor.text()
    will = None
    if flags & _WILL_FLAG:
        will = Will(cursor.text(), bool(flags & _WILL_RETAIN))
        cursor.binary()
    if flags & _USERNAME:
        cursor.text()
    if flags & _PASSWORD:
        cursor.binary()
    cursor.end()
    return Connect(level, client_id, keep_alive_s, will)


def without_session(body: bytes) -> bytes:
    """Return the body of a CONNECT with clean session set and keep-alive off.

    The gate watches the keep-alive itself, and the embedded broker keeps no sessions: what a device
    missed is retained or sent again.
    """
    changed = bytearray(body)
    changed[_FLAGS_AT] |= _CLEAN_SESSION
    changed[_KEEP_ALIVE_AT : _KEEP_ALIVE_AT + 2] = b"\x00\x00"
    return bytes(changed)


def parse(first_byte: int, body: bytes) -> Publish | Other:
    """Read any packet that may follow CONNECT.

    Args:
        first_byte: type and flags.
        body: everything after the fixed header.

    Raises:
        MalformedError: the type is not allowed here, or the packet is not well-formed.
    """
    try:
        kind = Kind(first_byte >> 4)
    except ValueError:
        raise MalformedError(f"clients may not send packets of type {first_byte >> 4}") from None
    flags = first_byte & 0x0F
    if kind is Kind.PUBLISH:
        return _publish(flags, body)
    if flags != (2 if kind in (Kind.SUBSCRIBE, Kind.UNSUBSCRIBE) else 0):
        raise MalformedError(f"{kind.name} has the flags {flags}")
    cursor = _Cursor(body)
    match kind:
        case Kind.CONNECT:
            raise MalformedError("a second CONNECT")
        case Kind.PUBACK:
            cursor.number()
        case Kind.SUBSCRIBE | Kind.UNSUBSCRIBE:
            _filters(cursor, with_qos=kind is Kind.SUBSCRIBE)
        case _:
            pass
    cursor.end()
    return Other(kind)


def _publish(flags: int, body: bytes) -> Publish:
    qos = (flags >> 1) & 3
    if qos > 1:
        raise MalformedError("QoS 2 is not served here: every channel of the contract has QoS 1")
    cursor = _Cursor(body)
    topic = cursor.text()
    if qos and cursor.number() == 0:
        raise MalformedError("PUBLISH has the packet id 0")
    return Publish(topic, bool(flags & 1))


def _filters(cursor: _Cursor, *, with_qos: bool) -> None:
    if cursor.number() == 0:
        raise MalformedError("a subscription has the packet id 0")
    count = 0
    while not cursor.at_end:
        count += 1
        if not cursor.text() or count > MAX_FILTERS:
            raise MalformedError(f"a subscription has an empty filter or more than {MAX_FILTERS}")
        if with_qos and cursor.take(1)[0] > 2:  # noqa: PLR2004 (the highest QoS)
            raise MalformedError("a subscription asks for an unknown QoS")
    if not count:
        raise MalformedError("a subscription has no filter")

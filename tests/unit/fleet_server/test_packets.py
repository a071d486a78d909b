"""The strict reader of MQTT packets."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.broker import packets, streams
from fleet_server.broker.packets import Connect, Kind, Other, Publish, Will
from fleet_server.errors import MalformedError


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack(">H", len(encoded)) + encoded


def connect(
    client_id: str = "cam-1", *, flags: int = 0x02, keep_alive: int = 30, rest: bytes = b""
) -> bytes:
    head = text("MQTT") + bytes((4, flags)) + struct.pack(">H", keep_alive)
    return head + text(client_id) + rest


def test_connect_with_will_and_password() -> None:
    rest = text("skerry/v1/cam-1/presence") + text("gone") + text("user") + text("secret")
    parsed = packets.parse_connect(connect(flags=0xEE, rest=rest))
    assert parsed == Connect(4, "cam-1", 30, Will("skerry/v1/cam-1/presence", retain=True))


def test_another_protocol_level_is_told_apart() -> None:
    assert packets.parse_connect(text("MQTT") + bytes((5, 0))).level == 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        text("HTTP") + bytes((4, 2, 0, 0)) + text("x"),
        connect() + b"x",
        connect()[:-1],
        connect(flags=0x03),
        connect(flags=0x12),
        connect(flags=0x16, rest=text("t") + text("m")),
        connect(flags=0x06, rest=text("t")),
        connect("a\x00b"),
        text("MQTT") + bytes((4, 2, 0, 0)) + b"\x00\x01\xff",
    ],
)
def test_malformed_connect(body: bytes) -> None:
    with pytest.raises(MalformedError):
        packets.parse_connect(body)


def test_without_session_changes_nothing_else() -> None:
    body = connect(flags=0x04, keep_alive=600, rest=text("t") + text("m"))
    changed = packets.parse_connect(packets.without_session(body))
    before = packets.parse_connect(body)
    assert changed == Connect(4, before.client_id, 0, before.will)
    assert packets.without_session(body)[7] & 0x02


@pytest.mark.parametrize(
    ("first", "body", "expected"),
    [
        (0x30, text("a/b") + b"payload", Publish("a/b", retain=False)),
        (0x3B, text("a/b") + b"\x00\x07{}", Publish("a/b", retain=True)),
        (0x40, b"\x00\x07", Other(Kind.PUBACK)),
        (0x82, b"\x00\x01" + text("a") + b"\x01", Other(Kind.SUBSCRIBE)),
        (0xA2, b"\x00\x01" + text("a") + text("b"), Other(Kind.UNSUBSCRIBE)),
        (0xC0, b"", Other(Kind.PINGREQ)),
        (0xE0, b"", Other(Kind.DISCONNECT)),
    ],
)
def test_well_formed(first: int, body: bytes, expected: Publish | Other) -> None:
    assert packets.parse(first, body) == expected


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x00, b""),
        (0xF0, b""),
        (0x10, connect()),
        (0x20, b"\x00\x00"),
        (0x34, text("a") + b"\x00\x01"),
        (0x36, text("a") + b"\x00\x01"),
        (0x32, text("a") + b"\x00"),
        (0x32, text("a") + b"\x00\x00"),
        (0x30, b"\x00\x05ab"),
        (0x40, b"\x00"),
        (0x40, b"\x00\x01\x02"),
        (0x50, b"\x00\x01"),
        (0x80, b"\x00\x01" + text("a") + b"\x01"),
        (0x82, b"\x00\x01"),
        (0x82, b"\x00\x01" + text("a") + b"\x03"),
        (0x82, b"\x00\x01" + text("") + b"\x01"),
        (0x82, b"\x00\x01" + (text("a") + b"\x01") * 33),
        (0xC0, b"x"),
    ],
)
def test_malformed(first: int, body: bytes) -> None:
    with pytest.raises(MalformedError):
        packets.parse(first, body)


@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(first: int, body: bytes) -> None:
    try:
        packets.parse(first, body)
    except MalformedError:
        return


@given(st.binary(max_size=300))
def test_any_connect_is_read_or_refused(body: bytes) -> None:
    try:
        packets.parse_connect(body)
    except MalformedError:
        return


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 300_000])
def test_encoded_length(size: int) -> None:
    encoded = streams.encode_packet((0x30, bytes(size)))
    digits = encoded[1 : len(encoded) - size]
    assert sum((digit & 0x7F) << (7 * place) for place, digit in enumerate(digits)) == size
    assert [digit & 0x80 for digit in digits] == [0x80] * (len(digits) - 1) + [0]

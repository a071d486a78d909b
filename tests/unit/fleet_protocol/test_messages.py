"""Messages: they read back, ignore what a newer sender adds, and refuse what is out of range."""

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import assignments, claims
from fleet_protocol.command_answers import decode_answer
from fleet_protocol.commands import decode_action, decode_command, decode_mailbox
from fleet_protocol.errors import ProtocolError
from fleet_protocol.histogram import of_values
from fleet_protocol.messages import (
    MAX_COVERED,
    MAX_MESSAGE_BYTES,
    Ack,
    Capabilities,
    ErrorKind,
    ModelWindow,
    Reported,
    SystemWindow,
    TelemetryWindow,
    check_coverage,
    decode,
    encode,
)

WINDOW = TelemetryWindow(
    stream="telemetry-0123456789abcdef",
    sequence=7,
    covers_from=6,
    start_ms=1_000,
    end_ms=2_000,
    models=[
        ModelWindow(
            family="fashion_mnist",
            version="1.0.0",
            variant="int8",
            requests=3,
            errors={ErrorKind.BACKEND: 1},
            latency_us=of_values([10.0, 2000.0]),
            classes={"bag": 2},
        )
    ],
    system=SystemWindow(cpu_percent=12.5, temperature_celsius=None),
)


def test_a_window_reads_back() -> None:
    assert decode(encode(WINDOW), TelemetryWindow) == WINDOW


def test_fields_of_a_newer_sender_are_ignored() -> None:
    later = msgspec.to_builtins(WINDOW) | {"field_of_tomorrow": {"x": 1}}
    assert decode(msgspec.json.encode(later), TelemetryWindow) == WINDOW


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"sequence": 0},
        {"stream": "telemetry"},
        {"stream": "telemetry-0123456789abcdef\n"},
        {"start_ms": -1},
        {"models": [{"family": "../x", "version": "1.0.0", "variant": "a", "requests": 1}]},
        {"models": [{"family": "x", "version": "1.0.0", "variant": "a", "requests": -1}]},
        {"models": [{"family": "x", "version": "1.0.0", "variant": "a", "requests": 2**53 + 1}]},
        {"system": {"cpu_percent": 101.0}},
        {"sequence": "7"},
    ],
)
def test_values_out_of_range_are_refused_by_name(change: dict[str, object]) -> None:
    payload = msgspec.json.encode(msgspec.to_builtins(WINDOW) | change)
    with pytest.raises(ProtocolError, match=r"`[a-z_.0-9\[\]]+` (must be|is)"):
        decode(payload, TelemetryWindow)


@pytest.mark.parametrize(
    ("covers_from", "sequence", "sound"),
    [
        (1, 1, True),
        (1, MAX_COVERED, True),
        (2**63 - 1, 2**63 - 1, True),
        (2, 1, False),
        (1, MAX_COVERED + 1, False),
        (1, 2**63 - 1, False),
    ],
)
def test_what_a_message_stands_for_is_bounded(
    covers_from: int, sequence: int, *, sound: bool
) -> None:
    window = msgspec.structs.replace(WINDOW, covers_from=covers_from, sequence=sequence)
    with contextlib.nullcontext() if sound else pytest.raises(ProtocolError, match="sequence"):
        check_coverage(window)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_read(payload: bytes) -> None:
    for message_type in (TelemetryWindow, Reported, Ack, Capabilities):
        try:
            decode(payload, message_type)
        except ProtocolError:
            continue


def test_a_message_nested_without_end_is_refused() -> None:
    for message_type in (TelemetryWindow, Reported, Ack, Capabilities):
        with pytest.raises(ProtocolError, match="nested too deeply"):
            decode(b'{"unknown":' * 20_000, message_type)


@pytest.mark.parametrize("read", [decode_answer, decode_command, decode_mailbox, decode_action])
def test_so_is_what_belongs_to_commands(read: Callable[[bytes], object]) -> None:
    with pytest.raises(ProtocolError, match=r"nested too deeply|no field `x`"):
        read(b'{"x":' * 1_500)


def test_a_message_beyond_the_bound_neither_leaves_nor_enters() -> None:
    huge = Ack(stream="event-0123456789abcdef", sequence=1)
    payload = encode(huge) + b" " * MAX_MESSAGE_BYTES
    with pytest.raises(ProtocolError, match="at most"):
        decode(payload, Ack)
    wide = msgspec.structs.replace(WINDOW, models=WINDOW.models * 3000)
    with pytest.raises(ProtocolError, match="at most"):
        encode(wide)


@pytest.mark.parametrize(
    ("fields", "targets"),
    [
        ({}, 1),
        ({"x-skerry-assignment": {"device_id": "cam"}}, 0),
        ({"x-skerry-assignment": {"device_id": "cam", "run_nothing": True}}, 1),
        ({"x-skerry-assignment": {"device_id": "cam", "complete": False}}, 1),
        ({"x-skerry-assignment": {"device_id": "cam", "more": 1}}, 1),
        ({"x-skerry-assignment": "cam"}, 1),
    ],
)
def test_an_assignment_without_a_sound_binding_is_refused(
    fields: dict[str, object], targets: int
) -> None:
    with pytest.raises(ProtocolError):
        assignments.binding_of(fields, target_count=targets)


def test_a_binding_reads_back() -> None:
    binding = assignments.Binding(device_id="cam", run_nothing=True)
    assert assignments.binding_of(assignments.extra_fields(binding), target_count=0) == binding


def test_a_claim_reads_back_and_an_unknown_field_is_refused() -> None:
    bundle = claims.ClaimBundle(
        device_id="cam",
        token="t",
        expires_at_ms=1,
        fleet_ca_pem="",
        release_root="{}",
        director_root="{}",
        floors={"fashion_mnist": 2},
    )
    assert claims.decode(claims.encode(bundle)) == bundle
    with pytest.raises(ProtocolError, match="no field"):
        claims.decode(msgspec.json.encode(msgspec.to_builtins(bundle) | {"flor": 1}))

"""No secret leaves the device in a log, and what the log is about stays."""

import base64
import gzip
import json
import logging
import secrets
import time
from pathlib import Path

import pytest

from edge_agent import log_ring
from edge_agent.control.commands import logs
from edge_agent.control.commands.redaction import redact_line, redact_text
from edge_agent.control.commands.runner import CommandRefusedError
from fleet_protocol import command_answers
from fleet_protocol.commands import Logs

SECRET = "s3cr3t-Wahl5Wert"
JWT = ".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    for part in (b'{"alg":"ES256"}', b'{"sub":"cam-01"}', b"\x01" * 64)
)
PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----"

PLANTED = [
    f"Authorization: Bearer {SECRET}",
    f"authorization: Basic {SECRET}",
    f"got headers {{'Authorization': 'Bearer {SECRET}', 'x': '1'}}",
    f"Cookie: session={SECRET}; other=1",
    f"password={SECRET}",
    f"the password is {SECRET}",
    f"MQTT_PASSWORD: '{SECRET}'",
    f'{{"api_key": "{SECRET}"}}',
    f"https://user:{SECRET}@example.org/path",
    f"https://{SECRET}@example.org/path",
    f"GET /x?access_token={SECRET}&y=1",
    f"client_secret = {SECRET}",
    f"token {JWT} was refused",
    f"https://user:{SECRET}@x@example.org/path",
    f"https://user:a/{SECRET}@example.org/path",
    f'{{\\"password\\": \\"{SECRET}\\"}}',
    f'{{"password": "a\\"{SECRET}"}}',
    f"{{'token': b'{SECRET}'}}",
    f"('password', '{SECRET}')",
    f"PWD={SECRET}",
    f"GET https://blobs.example.org/x?sv=1&sig={SECRET}&se=2",
    f"key: {PEM}",
    f"cannot read {PEM[:60]}",
]
HARMLESS = [
    "GET https://fleet.example.org:8443/api/v1/devices?after=mail@example.org",
    "/var/lib/skerry/models/animals-Large/1.2.0/variants/onnxruntime-cpu/model.onnx",
    "update of animals 1.2.0 went to probation",
    "blob 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 is whole",
    "broker_unreachable host=broker.example.org port=8883",
    "models/animals/1.2.0/manifest.json has 1024 bytes",
    "command 0123456789abcdef0123456789abcdef was taken",
]


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_secret_is_taken_out(text: str) -> None:
    for line in (text, json.dumps({"event": text}), json.dumps({"reason": [{"deep": text}]})):
        cleaned, count = redact_line(line)
        assert count, cleaned
        for part in (SECRET, JWT, JWT.split(".")[2], "MIGHAgEA"):
            assert part not in cleaned


@pytest.mark.parametrize(
    "name", ["token", "Password", "client_secret", "X-Api-Key", "authorization", "private_key"]
)
def test_a_field_with_a_secrets_name_is_taken_out(name: str) -> None:
    cleaned, count = redact_line(json.dumps({"event": "x", "extra": {name: "abc"}}))
    assert (json.loads(cleaned)["extra"][name], count) == ("[redacted]", 1)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_the_log_is_about_stays(text: str) -> None:
    assert redact_text(text) == (text, 0)
    assert redact_line(json.dumps({"event": text}))[1] == 0


@pytest.mark.parametrize(
    "make",
    [
        secrets.token_urlsafe,
        lambda size: base64.b64encode(secrets.token_bytes(size)).decode().replace("/", "x"),
    ],
)
def test_random_credentials_are_taken_out(make: "object") -> None:
    assert callable(make)
    for _ in range(200):
        credential = make(32)
        assert credential not in redact_text(f"using {credential} now")[0]


def test_a_private_key_that_is_logged_line_by_line_is_taken_out() -> None:
    for _ in range(200):
        line = base64.b64encode(secrets.token_bytes(48)).decode()
        assert line not in redact_text(line)[0]


@pytest.mark.parametrize("part", ["a1", "a", "a-", "token_", "eyJ", "://", "a:", "password ", "="])
def test_long_lines_take_no_time_to_speak_of(part: str) -> None:
    began_s = time.process_time()
    redact_text(part * (16 * 1024 // len(part)))
    assert time.process_time() - began_s < 1.0


def test_what_is_nested_deeply_or_damaged_does_not_end_the_process(tmp_path: Path) -> None:
    redact_line('{"a":' * 3000 + "1" + "}" * 3000)
    ring(tmp_path / "log", ("2026-01-01T00:00:00+00:00", "info", "whole"))
    path = log_ring.path(tmp_path / "log", "control")
    head = b'{"time":"2026-01-01T00:00:00+00:00","x":'
    damaged = [head + b'"\xff"}', head + b"[" * 5000, b'{"time":"2026-01-01T00:00:00"}']
    path.write_bytes(path.read_bytes() + b"\n".join(damaged) + b"\n")
    assert unpacked(logs.excerpt(tmp_path / "log", Logs())) == ["whole"]


def ring(folder: Path, *lines: tuple[str, str, str]) -> None:
    """Write lines of (time, level, event)."""
    folder.mkdir(exist_ok=True)
    text = "".join(
        json.dumps({"time": time, "level": level, "event": event}) + "\n"
        for time, level, event in lines
    )
    log_ring.path(folder, "control").write_text(text)


def unpacked(result: command_answers.LogResult) -> list[str]:
    lines = gzip.decompress(result.content).decode().splitlines()
    assert len(lines) == result.lines
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize(
    ("wanted", "events", "left_out"),
    [
        (Logs(), ["one", "two", "three"], 0),
        (Logs(level="warning"), ["two", "three"], 0),
        (Logs(lines=1), ["three"], 2),
        (Logs(since_ms=1_767_225_605_000), ["two", "three"], 0),
        (Logs(process="runtime"), [], 0),
    ],
)
def test_only_what_was_asked_for(
    tmp_path: Path, wanted: Logs, events: list[str], left_out: int
) -> None:
    ring(
        tmp_path / "log",
        ("2026-01-01T00:00:00.000+00:00", "info", "one"),
        ("2026-01-01T00:00:10.000+00:00", "warning", "two"),
        ("2026-01-01T00:00:20.000+00:00", "error", "three"),
    )
    result = logs.excerpt(tmp_path / "log", wanted)
    assert (unpacked(result), result.left_out) == (events, left_out)


def test_an_excerpt_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 2000)
    noise = [("2026-01-01T00:00:00+00:00", "info", secrets.token_hex(10)) for _ in range(500)]
    ring(tmp_path / "log", *noise)
    result = logs.excerpt(tmp_path / "log", Logs())
    assert len(result.content) <= 2000
    assert unpacked(result)[-1] == noise[-1][2]
    assert result.lines + result.left_out == 500


def test_a_device_without_a_ring_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandRefusedError, match="keeps no log"):
        logs.excerpt(tmp_path / "log", Logs())


def test_the_ring_is_bounded_private_and_never_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    monkeypatch.setattr(log_ring, "MAX_FILE_BYTES", 1000)
    log_ring.keep(tmp_path / "log", "control")
    (handler,) = set(root.handlers) - set(before)
    try:
        for number in range(200):
            root.warning("event %d", number)
        sizes = [path.stat().st_size for path in log_ring.files(tmp_path / "log", "control")]
        assert len(sizes) == 2
        assert max(sizes) <= 1000
        assert log_ring.path(tmp_path / "log", "control").stat().st_mode & 0o777 == 0o600
        handler.close()
        for path in log_ring.files(tmp_path / "log", "control"):
            path.unlink()
        (tmp_path / "log").rmdir()
        root.warning("the disk is gone")
    finally:
        root.removeHandler(handler)
        handler.close()

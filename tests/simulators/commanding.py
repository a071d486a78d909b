"""Commands as a fleet's signer makes them, and as a thief of its key could."""

import secrets
from collections.abc import Mapping

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from fleet_protocol.command_answers import Answer, Outcome, decode_answer
from fleet_protocol.commands import PAYLOAD_TYPE
from tests.simulators.control_device import DEVICE, ControlDevice

HOUR_MS = 3_600_000


def command(sequence: int, kind: str = "diagnostics", *, now_ms: int) -> dict[str, object]:
    """Return the payload of a command."""
    return {
        "schema": 1,
        "id": secrets.token_hex(16),
        "device_id": DEVICE,
        "sequence": sequence,
        "issued_ms": now_ms,
        "expires_ms": now_ms + HOUR_MS,
        "action": {"kind": kind},
    }


def envelope(
    payload: Mapping[str, object], signer: CryptoSigner, *, payload_type: str = PAYLOAD_TYPE
) -> dict[str, object]:
    """Return a signed envelope."""
    made = Envelope(msgspec.json.encode(payload), payload_type, {})
    made.sign(signer)
    return dict(made.to_dict())


def mailbox(*envelopes: Mapping[str, object]) -> bytes:
    """Return a mailbox of envelopes."""
    return msgspec.json.encode({"schema": 1, "commands": list(envelopes)})


async def give(device: ControlDevice, *payloads: Mapping[str, object]) -> list[Answer]:
    """Let commands of the fleet arrive and run; return the answers that were sent."""
    signed = [envelope(payload, device.director.key) for payload in payloads]
    return await arrive(device, mailbox(*signed))


async def arrive(device: ControlDevice, content: bytes) -> list[Answer]:
    """Let a mailbox arrive and its commands run; return the answers that were sent."""
    device.parts.command_desk.offer(content)
    await device.parts.commands.work()
    return await answers(device)


async def answers(device: ControlDevice) -> list[Answer]:
    """Send what waits; return what the server has got since the last call."""
    await device.parts.answers.send_all()
    posted = [decode_answer(body) for _, body in device.posted]
    device.posted.clear()
    return posted


def outcomes(given: list[Answer]) -> list[Outcome]:
    return [answer.outcome for answer in given]

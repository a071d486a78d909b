"""The signer signs commands of the fixed list, short-lived and in order, and nothing else."""

import json
from collections.abc import Callable

import msgspec
import pytest
from securesystemslib.dsse import Envelope
from tuf.api.metadata import Metadata, Root

from fleet_protocol.commands import decode_command
from fleet_server.assignments.signer import AssignmentSigner
from fleet_server.clock import unix_ms
from fleet_server.commands.signer import MAX_STEP, SequenceNotHigherError
from fleet_server.commands.signing import SignCommand
from fleet_server.errors import RefusedError
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.conftest import FakeClock

Make = Callable[..., SignCommand]
HOUR_MS = 3_600_000


@pytest.fixture
def signer(fleet: Fleet, clock: FakeClock) -> AssignmentSigner:
    return AssignmentSigner.open(fleet.data, clock)


@pytest.fixture
def make(clock: FakeClock, invitations: dict[str, str]) -> Make:
    def request(sequence: int = 1, **changes: object) -> SignCommand:
        now_ms = unix_ms(clock())
        values: dict[str, object] = {
            "id": "0" * 32,
            "device_id": "cam-1",
            "sequence": sequence,
            "issued_ms": now_ms,
            "expires_ms": now_ms + HOUR_MS,
            "action": {"kind": "diagnostics"},
        }
        values |= changes
        values.setdefault("claim", invitations.get(str(values["device_id"]), ""))
        return msgspec.convert(values, SignCommand)

    return request


def test_a_device_can_verify_it(fleet: Fleet, signer: AssignmentSigner, make: Make) -> None:
    (document,) = signer.commands.sign([make(7)])
    root = Metadata[Root].from_bytes((fleet.data.director / "1.root.json").read_bytes()).signed
    role = root.roles["targets"]
    envelope = Envelope.from_dict(json.loads(document))
    envelope.verify([root.keys[keyid] for keyid in role.keyids], role.threshold)
    assert decode_command(envelope.payload).sequence == 7


@pytest.mark.parametrize("sequence", [1, 4, 5, 5 + MAX_STEP + 1])
def test_sequences_only_rise(
    fleet: Fleet, signer: AssignmentSigner, make: Make, clock: FakeClock, sequence: int
) -> None:
    signer.commands.sign([make(5)])
    signer.close()
    restarted = AssignmentSigner.open(fleet.data, clock)
    with pytest.raises(SequenceNotHigherError) as raised:
        restarted.commands.sign([make(sequence)])
    assert raised.value.highest == {"cam-1": 5}
    with pytest.raises(SequenceNotHigherError):
        restarted.commands.sign([make(1, device_id="cam-2"), make(6), make(6)])
    restarted.commands.sign([make(1, device_id="cam-2"), make(6)])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires_ms": 25 * HOUR_MS}, "24 hours at most"),
        ({"expires_ms": 0}, "24 hours at most"),
        ({"issued_ms": 2 * HOUR_MS, "expires_ms": 3 * HOUR_MS}, "when it is issued"),
        ({"claim": ""}, "invited"),
        ({"device_id": "cam-3", "claim": "junk"}, "invited"),
    ],
)
def test_lifetimes_and_invitations(
    signer: AssignmentSigner,
    make: Make,
    clock: FakeClock,
    changes: dict[str, object],
    reason: str,
) -> None:
    now_ms = unix_ms(clock())
    moved = {
        name: now_ms + value if isinstance(value, int) else value for name, value in changes.items()
    }
    with pytest.raises(RefusedError, match=reason):
        signer.commands.sign([make(1, **moved)])


def test_a_claim_of_another_device_invites_nobody(
    signer: AssignmentSigner, make: Make, invitations: dict[str, str]
) -> None:
    with pytest.raises(RefusedError, match="is one of cam-2"):
        signer.commands.sign([make(1, claim=invitations["cam-2"])])


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "exec", "argv": ["sh"]},
        {"kind": "install", "path": "models/x"},
        {"kind": "logs", "path": "/etc/shadow"},
        {"kind": "configure", "version": 1, "settings": {"runtime": {"host": "::"}}},
        {"kind": "bench", "family": "../x"},
        {},
    ],
)
def test_only_what_may_be_commanded(make: Make, action: dict[str, object]) -> None:
    """What the socket reads is of these types already: anything else is no frame."""
    with pytest.raises(msgspec.ValidationError):
        make(1, action=action)

"""The signer signs well-formed assignments with rising versions, and nothing else."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from tuf.api.metadata import Metadata, Root, Targets

from fleet_protocol.assignments import binding_of
from fleet_server.assignments import signing
from fleet_server.assignments.signer import (
    MAX_STEP,
    AssignmentSigner,
    SignerServer,
    VersionNotHigherError,
)
from fleet_server.assignments.signer_client import SignerClient, VersionTakenError
from fleet_server.assignments.signing import SignBatch, SignRequest, Target
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import RefusedError, SetupError, UnavailableError
from fleet_server.online_keys import OnlineKeys
from tests.unit.fleet_server.authority import FAMILY, DeviceKey, Fleet
from tests.unit.fleet_server.conftest import FakeClock

Make = Callable[..., SignRequest]


@pytest.fixture
def signer(fleet: Fleet, clock: FakeClock) -> AssignmentSigner:
    return AssignmentSigner.open(fleet.data, clock)


@pytest.fixture
def make(clock: FakeClock, invitations: dict[str, str]) -> Make:
    def request(version: int = 1, **changes: object) -> SignRequest:
        path = f"models/{FAMILY}/1.0.0/manifest.json"
        values: dict[str, object] = {
            "device_id": "cam-1",
            "version": version,
            "expires_s": int((clock() + timedelta(days=30)).timestamp()),
            "targets": [{"path": path, "length": 100, "sha256": "0" * 64}],
        }
        values |= changes
        values.setdefault("claim", invitations.get(str(values["device_id"]), ""))
        return msgspec.convert(values, SignRequest)

    return request


def sign(signer: AssignmentSigner, *requests: SignRequest) -> list[str]:
    return signer.sign(SignBatch(requests=list(requests)))


def test_a_device_can_verify_it(fleet: Fleet, signer: AssignmentSigner, make: Make) -> None:
    (document,) = sign(signer, make(7))
    root = Metadata[Root].from_bytes((fleet.data.director / "1.root.json").read_bytes()).signed
    metadata = Metadata[Targets].from_bytes(document.encode())
    root.verify_delegate("targets", metadata.signed_bytes, metadata.signatures)
    signed = metadata.signed
    assert binding_of(signed.unrecognized_fields, target_count=1).device_id == "cam-1"
    assert (signed.version, list(signed.targets)) == (7, [f"models/{FAMILY}/1.0.0/manifest.json"])


@pytest.mark.parametrize("version", [1, 4, 5, 5 + MAX_STEP + 1])
def test_versions_only_rise(
    fleet: Fleet, signer: AssignmentSigner, make: Make, clock: FakeClock, version: int
) -> None:
    sign(signer, make(5))
    signer.close()
    restarted = AssignmentSigner.open(fleet.data, clock)
    with pytest.raises(VersionNotHigherError) as raised:
        sign(restarted, make(version))
    assert raised.value.highest == {"cam-1": 5}
    sign(restarted, make(6), make(1, device_id="cam-2"))


def test_a_batch_is_signed_as_a_whole_or_not_at_all(signer: AssignmentSigner, make: Make) -> None:
    sign(signer, make(1))
    with pytest.raises(VersionNotHigherError):
        sign(signer, make(1, device_id="cam-2"), make(1))
    with pytest.raises(VersionNotHigherError):
        sign(signer, make(2), make(2))
    sign(signer, make(1, device_id="cam-2"), make(2))


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["models/fashion_mnist/1.0.0/model.onnx"], "lists manifests"),
        (["models/fashion_mnist/latest/manifest.json"], "release version"),
        (["../../etc/passwd"], "is not models/"),
        (["1.root.json"], "is not models/"),
        ([f"models/{FAMILY}/1.0.0/manifest.json", f"models/{FAMILY}/2.0.0/manifest.json"], "twice"),
    ],
)
def test_only_manifests_of_releases(
    signer: AssignmentSigner, make: Make, paths: list[str], reason: str
) -> None:
    targets = [Target(path=path, length=1, sha256="0" * 64) for path in paths]
    with pytest.raises(RefusedError, match=reason):
        sign(signer, make(targets=targets))


def test_an_empty_list_says_that_it_is_meant(signer: AssignmentSigner, make: Make) -> None:
    target = Target(path=f"models/{FAMILY}/1.0.0/manifest.json", length=1, sha256="0" * 64)
    for targets, run_nothing in (([], False), ([target], True)):
        with pytest.raises(RefusedError, match="run_nothing"):
            sign(signer, make(targets=targets, run_nothing=run_nothing))
    (document,) = sign(signer, make(targets=[], run_nothing=True))
    fields = Metadata[Targets].from_bytes(document.encode()).signed.unrecognized_fields
    assert binding_of(fields, target_count=0).run_nothing


@pytest.mark.parametrize("days", [-1, 0, 32, 4000])
def test_lifetimes(signer: AssignmentSigner, make: Make, clock: FakeClock, days: int) -> None:
    expires_s = int((clock() + timedelta(days=days)).timestamp())
    with pytest.raises(RefusedError, match="may live"):
        sign(signer, make(expires_s=expires_s))


@pytest.mark.parametrize(
    "changes",
    [
        {"device_id": "_ingest"},
        {"device_id": "../x"},
        {"version": 0},
        {"version": 1.5},
        {"targets": [{"path": "x", "length": 0, "sha256": "0" * 64}]},
        {"targets": [{"path": "x", "length": 1, "sha256": "0" * 63}]},
        {"run": "anything"},
    ],
)
def test_malformed_requests_are_not_even_requests(make: Make, changes: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        make(**changes)


def test_a_foreign_key_stops_the_start(fleet: Fleet, clock: FakeClock) -> None:
    for pem in (DeviceKey.new("x").pem, (fleet.data.online / "snapshot.pem").read_bytes(), b""):
        (fleet.data.signer / "assignment.pem").write_bytes(pem)
        with pytest.raises(SetupError):
            AssignmentSigner.open(fleet.data, clock)


async def test_a_full_disk_stops_signing_and_nothing_else(
    fleet: Fleet, signer: AssignmentSigner, make: Make, clock: FakeClock
) -> None:
    database = sqlite3.connect(fleet.data.signer / "signed.db", isolation_level=None)
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    limited = AssignmentSigner(
        director=fleet.data.director,
        keys=OnlineKeys("assignment", fleet.data.signer),
        claims=ClaimVerifier.load(fleet.data.online / "claim.pub.pem"),
        database=database,
        clock=clock,
    )
    many = [make(device_id=f"cam-{number:03}-{'x' * 40}") for number in range(200)]
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            sign(limited, *many)
    database.execute("PRAGMA max_page_count = 100000")
    assert len(sign(limited, *many)) == 200
    limited.close()
    signer.close()


async def test_over_the_socket(signer: AssignmentSigner, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    stop = asyncio.Event()
    serving = asyncio.create_task(SignerServer(signer).serve(path, stop))
    client = SignerClient(path)
    async with asyncio.timeout(10):
        while not await client.answers():  # noqa: ASYNC110 (it polls another task's socket)
            await asyncio.sleep(0.01)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(await client.sign([make(3)])) == 1
    with pytest.raises(VersionTakenError) as raised:
        await client.sign([make(3)])
    assert raised.value.highest == {"cam-1": 3}
    with pytest.raises(RefusedError, match="may live"):
        await client.sign([make(4, expires_s=0)])

    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"\x00\x00\x00\x02{}")
    assert "not a SignBatch" in (await signing.receive(reader, signing.SignAnswer)).refusal
    writer.close()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"\xff\xff\xff\xff")
    assert "a frame of" in (await signing.receive(reader, signing.SignAnswer)).refusal
    writer.close()

    signer.close()
    with pytest.raises(UnavailableError, match=r"cannot sign now.*database failed"):
        await client.sign([make(5)])
    stop.set()
    await serving
    with pytest.raises(UnavailableError, match="does not answer"):
        await client.sign([make(4)])


@pytest.mark.parametrize("claim", ["", "junk", "of another device", "of another fleet"])
def test_an_unknown_device_is_refused(
    signer: AssignmentSigner, make: Make, invitations: dict[str, str], claim: str
) -> None:
    if claim == "of another device":
        claim = invitations["cam-2"]
    elif claim == "of another fleet":
        head, _, rest = invitations["cam-1"].rpartition(".")
        claim = f"{head}.{rest[::-1]}"
    with pytest.raises(RefusedError, match=r"unknown|one of cam-2"):
        sign(signer, make(1, claim=claim))
    sign(signer, make(1))
    sign(signer, make(2, claim=""))


def test_an_incomplete_list_is_refused(signer: AssignmentSigner, make: Make) -> None:
    def targets(*families: str) -> list[Target]:
        return [
            Target(path=f"models/{family}/1.0.0/manifest.json", length=1, sha256="0" * 64)
            for family in families
        ]

    sign(signer, make(1, targets=targets("letters", "digits")))
    with pytest.raises(RefusedError, match="incomplete: it leaves out letters"):
        sign(signer, make(2, targets=targets("digits")))
    sign(signer, make(2, targets=targets("digits", "letters", "words")))


async def test_the_three_refusals_over_the_socket(
    signer: AssignmentSigner, make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "signer.sock"
    stop = asyncio.Event()
    serving = asyncio.create_task(SignerServer(signer).serve(path, stop))
    client = SignerClient(path)
    async with asyncio.timeout(10):
        while not await client.answers():  # noqa: ASYNC110 (it polls another task's socket)
            await asyncio.sleep(0.01)
        both = [
            Target(path=f"models/{family}/1.0.0/manifest.json", length=1, sha256="0" * 64)
            for family in ("letters", "digits")
        ]
        await client.sign([make(4, targets=both)])
        with pytest.raises(VersionTakenError):
            await client.sign([make(4, targets=both)])
        with pytest.raises(RefusedError, match="incomplete"):
            await client.sign([make(5, targets=both[:1])])
        with pytest.raises(RefusedError, match="unknown"):
            await client.sign([make(1, device_id="made-up")])
        (held,) = await client.keyids()
        assert held == signer._signer.public_key.keyid
        stop.set()
        await serving

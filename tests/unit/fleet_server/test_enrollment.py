"""Enrolment: one claim, one key, one device; and the devices' tokens afterwards."""

import asyncio
import base64
import hmac
import json
import ssl
from base64 import urlsafe_b64encode
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import func, select

from fleet_protocol.claims import TOKEN_ISSUER
from fleet_server.database import Database
from fleet_server.devices.certificates import DeviceCa, read_peer
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.registry import EnrolledDevices
from fleet_server.devices.service import Devices, Filters
from fleet_server.devices.tables import Device
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import (
    ConflictError,
    FleetError,
    MalformedError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
)
from tests.unit.fleet_server.authority import DeviceKey, Fleet
from tests.unit.fleet_server.conftest import FakeClock


class NoConnections:
    def __init__(self) -> None:
        self.cut: list[str] = []

    async def disconnect(self, device_id: str) -> None:
        self.cut.append(device_id)


@pytest.fixture
def enrollment(fleet: Fleet, database: Database, clock: FakeClock) -> Enrollment:
    online = fleet.data.online
    return Enrollment(
        database=database,
        verifier=ClaimVerifier.load(online / "claim.pub.pem"),
        ca=DeviceCa.load(
            key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt"
        ),
        clock=clock,
    )


@pytest.fixture
def devices(database: Database, clock: FakeClock) -> Devices:
    return Devices(database=database, connections=[NoConnections()], clock=clock)


async def count(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(Device)) or 0


async def test_the_certificate_names_the_device_and_its_key(
    fleet: Fleet, enrollment: Enrollment
) -> None:
    key = DeviceKey.new("cam-1")
    device = await enrollment.enroll(token=fleet.claim_token("cam-1"), csr_pem=key.csr())
    certificate = x509.load_pem_x509_certificate(device.certificate_pem.encode())
    ca = x509.load_pem_x509_certificate((fleet.data.online / "device-ca.crt").read_bytes())
    certificate.verify_directly_issued_by(ca)
    assert certificate.public_key() == key.key.public_key()
    peer = read_peer(certificate.public_bytes(Encoding.DER))
    assert (peer.device_id, peer.public_key_sha256) == ("cam-1", device.public_key_sha256)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert timedelta(days=90) <= lifetime <= timedelta(days=90, minutes=6)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]


async def test_the_name_in_the_request_means_nothing(fleet: Fleet, enrollment: Enrollment) -> None:
    stranger = DeviceKey("cam-2", DeviceKey.new("cam-2").key)
    device = await enrollment.enroll(token=fleet.claim_token("cam-1"), csr_pem=stranger.csr())
    assert device.id == "cam-1"


async def test_a_lost_answer_may_be_asked_for_again(fleet: Fleet, enrollment: Enrollment) -> None:
    token, key = fleet.claim_token("cam-1"), DeviceKey.new("cam-1")
    first = await enrollment.enroll(token=token, csr_pem=key.csr())
    again = await enrollment.enroll(token=token, csr_pem=key.csr())
    assert again.certificate_pem == first.certificate_pem


async def test_a_claim_serves_one_key(
    fleet: Fleet, enrollment: Enrollment, database: Database
) -> None:
    token = fleet.claim_token("cam-1")
    await enrollment.enroll(token=token, csr_pem=DeviceKey.new("cam-1").csr())
    with pytest.raises(ConflictError, match="used already, with another key"):
        await enrollment.enroll(token=token, csr_pem=DeviceKey.new("cam-1").csr())
    assert await count(database) == 1


async def test_a_device_id_belongs_to_its_first_claim(fleet: Fleet, enrollment: Enrollment) -> None:
    key = DeviceKey.new("cam-1")
    await enrollment.enroll(token=fleet.claim_token("cam-1"), csr_pem=key.csr())
    with pytest.raises(ConflictError, match="enrolled already, with another claim"):
        await enrollment.enroll(token=fleet.claim_token("cam-1"), csr_pem=key.csr())


async def test_two_requests_race_with_one_claim(
    fleet: Fleet, enrollment: Enrollment, database: Database
) -> None:
    token = fleet.claim_token("cam-1")
    outcomes = await asyncio.gather(
        *(enrollment.enroll(token=token, csr_pem=DeviceKey.new("cam-1").csr()) for _ in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Device) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 3
    assert await count(database) == 1


async def test_an_expired_claim(fleet: Fleet, enrollment: Enrollment, clock: FakeClock) -> None:
    token = fleet.claim_token("cam-1")
    clock.advance(hours=2)
    with pytest.raises(NotAuthenticatedError, match="has expired; make a new claim"):
        await enrollment.enroll(token=token, csr_pem=DeviceKey.new("cam-1").csr())


def _claims(**changes: object) -> dict[str, object]:
    return {
        "iss": TOKEN_ISSUER,
        "sub": "cam-1",
        "jti": "0" * 32,
        "iat": 1,
        "exp": 2**40,
    } | changes


def _foreign(algorithm: str = "ES256", **changes: object) -> str:
    return jwt.encode({"alg": algorithm}, _claims(**changes), ECKey.generate_key("P-256"))


def _confused(fleet: Fleet) -> str:
    """Sign with the public key as if it were a shared secret."""
    public = (fleet.data.online / "claim.pub.pem").read_bytes()
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, _claims())]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = hmac.digest(public, signed, "sha256")
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


async def test_foreign_claims(fleet: Fleet, enrollment: Enrollment, database: Database) -> None:
    own = fleet.claim_token("cam-1")
    header, payload, signature = own.split(".")
    none = "eyJhbGciOiJub25lIn0"
    for token in (
        "",
        "x",
        "a.b.c",
        "ä",
        _foreign(),
        _confused(fleet),
        f"{none}.{payload}.",
        f"{header}.{payload}.{signature[:-4]}AAAA",
        "x" * 9000,
        DeviceKey.new("cam-1").token(),
    ):
        with pytest.raises(NotAuthenticatedError):
            await enrollment.enroll(token=token, csr_pem=DeviceKey.new("cam-1").csr())
    assert await count(database) == 0


def _signed_request(key: ec.EllipticCurvePrivateKey) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("csr", "error"),
    [
        ("", MalformedError),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
            MalformedError,
        ),
        (_signed_request(ec.generate_private_key(ec.SECP384R1())), RefusedError),
    ],
)
async def test_refused_requests_leave_the_claim_unused(
    fleet: Fleet, enrollment: Enrollment, csr: str, error: type[FleetError]
) -> None:
    token = fleet.claim_token("cam-1")
    with pytest.raises(error):
        await enrollment.enroll(token=token, csr_pem=csr)
    await enrollment.enroll(token=token, csr_pem=DeviceKey.new("cam-1").csr())


async def test_a_request_for_the_key_of_another(fleet: Fleet, enrollment: Enrollment) -> None:
    der = bytearray(
        x509.load_pem_x509_csr(DeviceKey.new("cam-1").csr().encode()).public_bytes(Encoding.DER)
    )
    der[-1] ^= 1
    tampered = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    with pytest.raises((RefusedError, MalformedError)):
        await enrollment.enroll(token=fleet.claim_token("cam-1"), csr_pem=tampered)


@pytest.fixture
async def cam(fleet: Fleet, enrollment: Enrollment) -> DeviceKey:
    key = DeviceKey.new("cam-1")
    await enrollment.enroll(token=fleet.claim_token("cam-1"), csr_pem=key.csr())
    return key


async def test_device_tokens(cam: DeviceKey, devices: Devices) -> None:
    assert await devices.authenticate(cam.token()) == "cam-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": None},
        {"exp": 1},
        {"exp": 2**40},
        {"iat": 2**40, "exp": 2**40 + 60},
        {"sub": "cam-2"},
        {"sub": "../cam"},
        {"sub": None},
        {"exp": "soon"},
        {"iat": None},
    ],
)
async def test_wrong_device_tokens(
    cam: DeviceKey, devices: Devices, changes: dict[str, object]
) -> None:
    with pytest.raises(NotAuthenticatedError):
        await devices.authenticate(cam.token(**changes))


async def test_tokens_of_another_key(cam: DeviceKey, devices: Devices) -> None:
    nested = urlsafe_b64encode(b'{"x":' * 1200).decode().rstrip("=")
    deep = [f"{nested}.e30.AA", f"eyJhbGciOiJFUzI1NiJ9.{nested}.AA"]
    for token in (DeviceKey.new(cam.device_id).token(), None, "", "a.b.c", "x" * 9000, *deep):
        with pytest.raises(NotAuthenticatedError):
            await devices.authenticate(token)


async def test_a_decommissioned_device_is_shut_out(
    cam: DeviceKey, database: Database, clock: FakeClock
) -> None:
    connections = NoConnections()
    devices = Devices(database=database, connections=[connections], clock=clock)
    registry = EnrolledDevices(database, clock=clock)
    enrolled = (await devices.get("cam-1")).device
    assert await registry.refusal("cam-1", enrolled.public_key_sha256) is None
    assert "another key" in (await registry.refusal("cam-1", "0" * 64) or "")
    await devices.decommission("cam-1")
    assert connections.cut == ["cam-1"]
    assert await registry.refusal("cam-1", enrolled.public_key_sha256) == "decommissioned"
    assert await registry.refusal("cam-2", "0" * 64) == "not enrolled"
    with pytest.raises(NotAuthenticatedError, match="decommissioned"):
        await devices.authenticate(cam.token())
    with pytest.raises(NotFoundError):
        await devices.decommission("cam-2")


async def test_a_decommissioned_device_gets_its_certificate_no_more(
    fleet: Fleet, enrollment: Enrollment, devices: Devices
) -> None:
    token, key = fleet.claim_token("cam-1"), DeviceKey.new("cam-1")
    await enrollment.enroll(token=token, csr_pem=key.csr())
    await devices.decommission("cam-1")
    with pytest.raises(NotPermittedError, match="decommissioned"):
        await enrollment.enroll(token=token, csr_pem=key.csr())


async def test_pages(fleet: Fleet, enrollment: Enrollment, devices: Devices) -> None:
    for name in ("b", "a", "c"):
        await enrollment.enroll(token=fleet.claim_token(name), csr_pem=DeviceKey.new(name).csr())
    first = await devices.page(Filters(), after=None, limit=2)
    rest = await devices.page(Filters(), after=first.next_after, limit=2)
    assert [each.device.id for each in (*first.devices, *rest.devices)] == ["a", "b", "c"]
    assert rest.next_after is None


def test_a_ca_that_does_not_fit_its_key(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(DeviceKey.new("x").pem)
    with pytest.raises(FleetError, match="is not the certificate of"):
        DeviceCa.load(
            key_file=tmp_path / "ca.pem", certificate_file=fleet.data.online / "device-ca.crt"
        )

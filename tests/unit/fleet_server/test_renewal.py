"""Certificates: renewed while the old one serves, revoked, replaced by a new claim."""

from datetime import timedelta

import pytest
from cryptography import x509

from fleet_protocol import messages
from fleet_protocol.messages import ConfirmRequest
from fleet_server.database import Database
from fleet_server.devices import attributes, changes
from fleet_server.devices.certificates import LIFETIME, DeviceCa, key_sha256
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.health import Health
from fleet_server.devices.registry import EnrolledDevices
from fleet_server.devices.renewal import REPEATABLE, Renewal
from fleet_server.devices.service import Devices
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import (
    ConflictError,
    NotAuthenticatedError,
    NotPermittedError,
    RefusedError,
)
from tests.unit.fleet_server.authority import DeviceKey, Fleet
from tests.unit.fleet_server.conftest import FakeClock


class NoConnections:
    async def disconnect(self, device_id: str) -> None:
        pass


class World:
    """The services around one device's identity."""

    def __init__(self, fleet: Fleet, database: Database, clock: FakeClock) -> None:
        online = fleet.data.online
        ca = DeviceCa.load(
            key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt"
        )
        verifier = ClaimVerifier.load(online / "claim.pub.pem")
        self.fleet, self.database, self.clock = fleet, database, clock
        self.enrollment = Enrollment(database=database, verifier=verifier, ca=ca, clock=clock)
        self.renewal = Renewal(database=database, ca=ca, clock=clock)
        self.devices = Devices(database=database, connections=[NoConnections()], clock=clock)
        self.registry = EnrolledDevices(database, clock=clock)

    def token(self, key: DeviceKey) -> str:
        now = int(self.clock.now.timestamp())
        return key.token(iat=now, exp=now + 60)

    async def enroll(self, key: DeviceKey, **claim: object) -> None:
        token = self.fleet.claim_token(key.device_id, now=self.clock.now, **claim)  # type: ignore[arg-type]
        await self.enrollment.enroll(token=token, csr_pem=key.csr())

    async def lets_in(self, key: DeviceKey) -> bool:
        """Say whether a key is let in, over HTTPS and MQTT alike."""
        public = key.key.public_key()
        refusal = await self.registry.refusal(key.device_id, key_sha256(public))
        try:
            await self.devices.authenticate(self.token(key))
        except NotAuthenticatedError:
            assert refusal is not None
            return False
        assert refusal is None
        return True

    async def changed(self, seen: int = 0) -> changes.Changes:
        async with self.database.reading() as session:
            return await changes.since(session, seen)


@pytest.fixture
def world(fleet: Fleet, database: Database, clock: FakeClock) -> World:
    return World(fleet, database, clock)


@pytest.fixture
async def cam(world: World) -> DeviceKey:
    key = DeviceKey.new("cam-1")
    await world.enroll(key)
    return key


def serial_body(serial: str) -> bytes:
    return messages.encode(ConfirmRequest(serial=serial))


def serial_of(pem: str) -> str:
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:x}"


async def test_the_old_key_serves_until_the_new_one_is_confirmed(
    world: World, cam: DeviceKey
) -> None:
    new = DeviceKey.new("cam-1")
    world.clock.advance(days=60)
    pem = await world.renewal.request("cam-1", csr_pem=new.csr())
    assert await world.lets_in(cam)
    assert not await world.lets_in(new)
    seen = (await world.changed()).number
    await world.renewal.confirm(world.token(new), body=serial_body(serial_of(pem)))
    assert await world.lets_in(new)
    assert not await world.lets_in(cam)
    assert await world.changed(seen) == changes.Changes(seen + 1, {"cam-1"})
    await world.renewal.confirm(
        world.token(new), body=serial_body(serial_of(pem))
    )  # the answer was lost
    world.clock.advance(days=89)
    assert await world.lets_in(new)


async def test_the_same_key_may_be_certified_again(world: World, cam: DeviceKey) -> None:
    world.clock.advance(days=60)
    pem = await world.renewal.request("cam-1", csr_pem=cam.csr())
    await world.renewal.confirm(world.token(cam), body=serial_body(serial_of(pem)))
    world.clock.advance(days=60)
    assert await world.lets_in(cam)


async def test_a_lost_answer_is_given_again_for_a_day(world: World, cam: DeviceKey) -> None:
    first = await world.renewal.request("cam-1", csr_pem=cam.csr())
    assert await world.renewal.request("cam-1", csr_pem=cam.csr()) == first
    world.clock.now += REPEATABLE
    assert await world.renewal.request("cam-1", csr_pem=cam.csr()) != first


async def test_who_may_not_confirm(world: World, cam: DeviceKey) -> None:
    new = DeviceKey.new("cam-1")
    pem = await world.renewal.request("cam-1", csr_pem=new.csr())
    for token in (world.token(cam), world.token(DeviceKey.new("cam-1")), None, "a.b.c"):
        with pytest.raises(NotAuthenticatedError):
            await world.renewal.confirm(token, body=serial_body(serial_of(pem)))
    with pytest.raises(ConflictError, match="renew again"):
        await world.renewal.confirm(world.token(new), body=serial_body("1"))
    assert await world.lets_in(cam)


async def test_a_revoked_device_comes_back_with_a_claim_that_replaces(
    world: World, cam: DeviceKey
) -> None:
    new = DeviceKey.new("cam-1")
    pem = await world.renewal.request("cam-1", csr_pem=new.csr())
    assert (await world.devices.revoke("cam-1")).health is Health.REVOKED
    assert not await world.lets_in(cam)
    with pytest.raises(NotAuthenticatedError):
        await world.renewal.request("cam-1", csr_pem=new.csr())
    with pytest.raises(NotAuthenticatedError):
        await world.renewal.confirm(world.token(new), body=serial_body(serial_of(pem)))
    with pytest.raises(ConflictError, match="--replace"):
        await world.enroll(new)
    await world.enroll(new, replaces=True)
    assert await world.lets_in(new)
    assert not await world.lets_in(cam)


async def test_an_expired_device_comes_back_and_keeps_its_labels(
    world: World, cam: DeviceKey
) -> None:
    await world.devices.label("cam-1", {"site": "oslo"})
    world.clock.now += LIFETIME + timedelta(seconds=1)
    assert (await world.devices.get("cam-1")).health is Health.EXPIRED
    assert not await world.lets_in(cam)
    with pytest.raises(NotAuthenticatedError):
        await world.renewal.request("cam-1", csr_pem=cam.csr())
    await world.enroll(cam, replaces=True, labels={"rack": "7"})
    assert await world.lets_in(cam)
    stored = (await world.devices.get("cam-1")).device.labels
    assert attributes.decode_labels(stored) == {"rack": "7", "site": "oslo"}


async def test_a_decommissioned_device_does_not_come_back(world: World, cam: DeviceKey) -> None:
    await world.devices.decommission("cam-1")
    with pytest.raises(NotPermittedError):
        await world.enroll(cam, replaces=True)


async def test_labels_of_a_claim(world: World) -> None:
    await world.enroll(DeviceKey.new("cam-2"), labels={"site": "oslo"})
    stored = (await world.devices.get("cam-2")).device.labels
    assert attributes.decode_labels(stored) == {"site": "oslo"}
    with pytest.raises(RefusedError, match="is a fact"):
        await world.enroll(DeviceKey.new("cam-3"), labels={"machine": "x"})


async def test_a_reader_that_is_far_behind_forgets_all(world: World, cam: DeviceKey) -> None:
    async with world.database.writing() as session:
        for _ in range(3):
            await changes.record(session, [cam.device_id, "cam-9"])
    assert await world.changed(2) == changes.Changes(4, {cam.device_id, "cam-9"})
    assert (await world.changed(-changes.KEPT)).devices is None
    assert (await world.changed(5)).devices is None, "the database was restored from a backup"

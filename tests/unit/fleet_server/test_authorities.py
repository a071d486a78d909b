"""One CA follows another: device CAs on the server, fleet CAs from offline to the devices."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import update

from edge_agent import fleet_authorities
from fleet_protocol.messages import AuthoritiesRequest
from fleet_server.audit.trail import entries
from fleet_server.broker import client_authorities
from fleet_server.database import Database, sqlite_url
from fleet_server.devices.authorities import DeviceCas, found
from fleet_server.devices.certificates import DeviceCa, issuer_key_id
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.renewal import Renewal
from fleet_server.devices.tables import IssuedCertificate
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import RefusedError, SetupError, UnavailableError
from fleet_server.trust import ca_commands, fleet_cas
from fleet_server.trust.device_authorities import DeviceAuthorities
from fleet_server.trust.live_certificates import check_renewed, install, renew_ingest
from fleet_server.trust.succession import Succession, put_into_office
from provisioning import claim_issue, fleet_ca, renewal
from tests.simulators.migrated_file import MigratedFile
from tests.unit.fleet_server.authority import PASSPHRASE, DeviceKey, Fleet
from tests.unit.fleet_server.conftest import FakeClock


class Rig:
    """The services of a data directory with a database of its own."""

    def __init__(self, fleet: Fleet, clock: FakeClock) -> None:
        self.fleet, self.clock, self.online = fleet, clock, fleet.data.online
        self.root = fleet.data.root
        self.database = Database(sqlite_url(fleet.data.database))
        self.cas = DeviceCas(self.online)
        self.enrollment = Enrollment(
            database=self.database,
            verifier=ClaimVerifier.load(self.online / "claim.pub.pem"),
            ca=self.cas,
            clock=clock,
        )
        self.renewal = Renewal(database=self.database, ca=self.cas, clock=clock)
        self.authorities = DeviceAuthorities(
            database=self.database, cas=self.cas, online=self.online
        )
        self.taken = True

    def succession(self) -> Succession:
        def check(_ca: DeviceCa) -> None:
            if not self.taken:
                raise UnavailableError("not yet")

        return Succession(
            cas=self.cas,
            tell_broker=lambda: None,
            check_taken=check,
            renew_ingest=lambda: renew_ingest(self.online, self.cas, self.clock),
        )

    async def make(self) -> str:
        """Make a device CA and put it into office; returns its key id."""
        await ca_commands.make_device_ca(self.root, now=self.clock())
        self.cas.take()
        self.succession().advance()
        return self.cas.issuing.key_id

    async def enroll(self, name: str) -> DeviceKey:
        key = DeviceKey.new(name)
        token = self.fleet.claim_token(name, now=self.clock())
        await self.enrollment.enroll(token=token, csr_pem=key.csr())
        return key

    async def renew(self, key: DeviceKey) -> DeviceKey:
        new = DeviceKey.new(key.device_id)
        pem = await self.renewal.request(key.device_id, csr_pem=new.csr())
        serial = x509.load_pem_x509_certificate(pem.encode()).serial_number
        now = int(self.clock.now.timestamp())
        token = new.token(iat=now, exp=now + 60)
        await self.renewal.confirm(token, body=f'{{"serial":"{serial:x}"}}'.encode())
        return new

    async def trail(self) -> list[str]:
        async with self.database.reading() as session:
            return [each.action for each in await entries(session, "default", after=0)]

    async def retire(self, *, force: bool = False) -> list[str]:
        return await ca_commands.retire_device_cas(self.root, force=force, clock=self.clock)


@pytest.fixture
async def rig(fleet: Fleet, clock: FakeClock, migrated_file: MigratedFile) -> Rig:
    await migrated_file.copy_to(fleet.data.database)
    return Rig(fleet, clock)


async def test_a_new_device_ca_issues_when_the_broker_trusts_it(rig: Rig) -> None:
    old = rig.cas.issuing.key_id
    files = await ca_commands.make_device_ca(rig.root, now=rig.clock())
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert rig.cas.take()
    assert not rig.cas.take()
    new = files.load().key_id
    assert rig.cas.key_ids == [old, new]
    assert rig.cas.issuing.key_id == old
    with pytest.raises(RefusedError, match="waits already"):
        await ca_commands.make_device_ca(rig.root, now=rig.clock())
    rig.taken = False
    with pytest.raises(UnavailableError):
        rig.succession().advance()
    assert rig.cas.issuing.key_id == old
    rig.taken = True
    rig.succession().advance()
    assert rig.cas.issuing.key_id == new
    shown = x509.load_pem_x509_certificate((rig.online / "ingest.crt").read_bytes())
    assert issuer_key_id(shown) == new
    assert rig.cas.waiting is None
    assert DeviceCas(rig.online).issuing.key_id == new


async def test_the_old_one_goes_when_no_device_needs_it(rig: Rig) -> None:
    old = rig.cas.issuing.key_id
    first, away = await rig.enroll("first"), await rig.enroll("away")
    new = await rig.make()
    later = await rig.enroll("later")
    told = await rig.authorities.tell(first.device_id, AuthoritiesRequest(trusted=[]))
    assert told.device_ca == new
    with pytest.raises(RefusedError, match="2 devices still hold"):
        await rig.retire()
    await rig.renew(first)
    status = {each.key: each for each in await ca_commands.status(rig.root, clock=rig.clock)}
    assert (status[old].state, status[old].devices) == ("former", 1)
    assert (status[new].state, status[new].devices) == ("issues", 2)
    with pytest.raises(RefusedError, match="1 device still holds"):
        await rig.retire()
    rig.clock.now += timedelta(days=91)  # `away` has expired
    assert await rig.retire() == [old]
    assert await rig.retire() == []
    assert [each.number for each in found(rig.online)] == [2]
    assert not (rig.online / "device-ca.pem").exists()
    assert rig.cas.take()
    assert rig.cas.key_ids == [new]
    assert {away.device_id, later.device_id} == {"away", "later"}


async def test_a_certificate_that_names_no_issuer_is_of_the_first_one(rig: Rig) -> None:
    await rig.enroll("first")
    async with rig.database.writing() as session:
        await session.execute(update(IssuedCertificate).values(issuer=None))
    await rig.make()
    with pytest.raises(RefusedError, match="1 device still holds"):
        await rig.retire()
    await rig.retire(force=True)
    third = await rig.make()
    status = await ca_commands.status(rig.root, clock=rig.clock)
    assert [each.devices for each in status if each.kind == "device CA"] == [0, 0]
    assert len(await rig.retire()) == 1
    assert DeviceCas(rig.online).key_ids == [third]


async def test_it_goes_by_force_when_devices_still_need_it(rig: Rig) -> None:
    old = rig.cas.issuing.key_id
    await rig.enroll("first")
    await rig.make()
    assert await rig.retire(force=True) == [old]


async def test_it_stays_while_the_ingest_service_shows_it(rig: Rig) -> None:
    put_into_office(await ca_commands.make_device_ca(rig.root, now=rig.clock()))
    with pytest.raises(RefusedError, match="the ingest service still shows"):
        await rig.retire()


class DiedError(Exception):
    """The process ended here."""


@pytest.mark.parametrize("step", range(1, 5))
async def test_whoever_dies_making_one_leaves_what_works(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    old, real, calls = rig.cas.issuing.key_id, os.fsync, [0]

    def dies(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == step:
            raise DiedError
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dies)
        with pytest.raises(DiedError):
            await ca_commands.make_device_ca(rig.root, now=rig.clock())
    assert await rig.trail() == ["authority.new_device_ca.begin"]
    after = DeviceCas(rig.online)
    assert after.issuing.key_id == old
    if after.waiting is None:
        await ca_commands.make_device_ca(rig.root, now=rig.clock())
        assert (await rig.trail())[1:] == [
            f"authority.new_device_ca{end}" for end in (".begin", "")
        ]
    rig.cas.take()
    rig.succession().advance()
    assert len(DeviceCas(rig.online).trusted) == 2


async def test_whoever_dies_retiring_one_has_ended_its_trust(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, real = await rig.make(), Path.unlink

    def dies(path: Path, *, missing_ok: bool = False) -> None:
        if path.suffix == ".pem":
            raise DiedError
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", dies)
        with pytest.raises(DiedError):
            await rig.retire()
    assert DeviceCas(rig.online).key_ids == [new]


def test_without_a_device_ca_nothing_starts(rig: Rig) -> None:
    (rig.online / "device-ca.crt").unlink()
    with pytest.raises(SetupError, match="restore device-ca"):
        DeviceCas(rig.online)


async def test_the_brokers_folder_follows(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "authorities"
    client_authorities.write(folder, rig.cas.certificates)
    (folder / "stray").write_text("")
    await rig.make()
    client_authorities.write(folder, rig.cas.certificates)
    names = {f"{client_authorities.subject_hash(each)}.0" for each in rig.cas.certificates}
    assert {path.name for path in folder.iterdir()} == names
    (own,) = fleet_cas.FleetCas.load(rig.online).trusted
    # What `openssl x509 -hash` says of "CN = Skerry fleet CA".
    assert client_authorities.subject_hash(own) == "d75f35aa"


async def test_a_new_fleet_ca_reaches_devices_before_the_servers_certificate(rig: Rig) -> None:
    authority, before = rig.fleet.authority, rig.fleet.authority.fleet_ca.read_text()
    cam = await rig.enroll("cam")
    new = fleet_ca.follow(authority, passphrase=PASSPHRASE, now=datetime.now(UTC))
    added = await ca_commands.adopt_fleet_ca(rig.root, authority.fleet_ca_handover.read_bytes())
    assert added == [fleet_cas.key_id(new)]
    assert (
        await ca_commands.adopt_fleet_ca(rig.root, authority.fleet_ca_handover.read_bytes()) == []
    )

    def renewed(*, former_ca: bool = False) -> bytes:
        return renewal.renewed_server_certificate(
            authority, (rig.online / "tls.crt").read_bytes(), names=None,
            passphrase=PASSPHRASE, now=datetime.now(UTC), former_ca=former_ca,
        )  # fmt: skip

    by_new = check_renewed(rig.online, renewed(), now=datetime.now(UTC))
    by_new.verify_directly_issued_by(new)
    with pytest.raises(RefusedError, match="1 device does not trust the new fleet CA"):
        await ca_commands.check_known(rig.root, by_new, clock=rig.clock)
    by_former = check_renewed(rig.online, renewed(former_ca=True), now=datetime.now(UTC))
    await ca_commands.check_known(rig.root, by_former, clock=rig.clock)
    with pytest.raises(RefusedError, match="of the oldest fleet CA"):
        await ca_commands.retire_fleet_cas(rig.root)

    told = await rig.authorities.tell(cam.device_id, AuthoritiesRequest(trusted=[]))
    trusted = fleet_authorities.trusted(before, told.fleet_cas)
    assert list(trusted.certificates)[1:] == [new]
    await rig.authorities.tell(cam.device_id, AuthoritiesRequest(trusted=trusted.key_ids))
    await ca_commands.check_known(rig.root, by_new, clock=rig.clock)
    install(rig.online, by_new)
    assert [len(await ca_commands.retire_fleet_cas(rig.root)) for _ in range(2)] == [1, 0]
    third = fleet_ca.follow(authority, passphrase=PASSPHRASE, now=datetime.now(UTC))
    handover = authority.fleet_ca_handover.read_bytes()
    assert await ca_commands.adopt_fleet_ca(rig.root, handover) == [fleet_cas.key_id(third)]
    told = await rig.authorities.tell(cam.device_id, AuthoritiesRequest(trusted=[]))
    assert list(fleet_authorities.trusted(before, told.fleet_cas).certificates)[1:] == [new, third]


def test_claims_trust_both_until_the_old_fleet_ca_retires(fleet: Fleet) -> None:
    now, authority = datetime.now(UTC), fleet.authority
    old = fleet_ca.trusted(authority)
    new = fleet_ca.follow(authority, passphrase=PASSPHRASE, now=now)
    assert fleet_ca.trusted(authority) == [*old, new]
    issuer = claim_issue.ClaimIssuer(authority, passphrase=PASSPHRASE)
    assert b"BEGIN CERTIFICATE" in issuer.issue("cam-1", now=now)
    assert [fleet_ca.retire(authority) for _ in range(2)] == [old, []]
    assert fleet_ca.trusted(authority) == [new]


async def test_a_handover_of_another_fleet(rig: Rig, tmp_path: Path) -> None:
    other = Fleet.provision(tmp_path / "other").authority
    fleet_ca.follow(other, passphrase=PASSPHRASE, now=datetime.now(UTC))
    before = (rig.online / "fleet-ca.crt").read_bytes()
    for content in (other.fleet_ca_handover.read_bytes(), other.fleet_ca.read_bytes(), b"nothing"):
        with pytest.raises(RefusedError):
            await ca_commands.adopt_fleet_ca(rig.root, content)
    assert (rig.online / "fleet-ca.crt").read_bytes() == before
    assert not fleet_cas.links_file(rig.online).exists()

"""What brokers are told: by whichever process, never less than before, and to whom."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import select, update

from fleet_server.accounts.roles import Role
from fleet_server.broker import acceptance, publication, revocation_list
from fleet_server.broker.acceptance import Held
from fleet_server.broker.publication import Publication
from fleet_server.broker.tables import BrokerAuthority
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.devices.authorities import CaFiles, DeviceCas
from fleet_server.devices.certificates import DeviceCa
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.tables import Device
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.tenancy import Tenant
from signing_keys.authority_certificates import following_authority
from tests.unit.fleet_server.authority import DeviceKey, Fleet
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

ROUTE = "/api/v1/trust/broker"


class Servers:
    """Several server processes on one database and copies of one folder."""

    def __init__(self, fleet: Fleet, database: Database, clock: FakeClock) -> None:
        self.fleet, self.database, self.clock = fleet, database, clock
        self.online = fleet.data.online

    def process(self) -> Publication:
        cas = DeviceCas(self.online)
        return Publication(database=self.database, cas=cas, clock=self.clock)

    async def enroll(self, name: str) -> int:
        """Enrol a device; returns the serial of its certificate."""
        enrollment = Enrollment(
            database=self.database,
            verifier=ClaimVerifier.load(self.online / "claim.pub.pem"),
            ca=DeviceCas(self.online),
            clock=self.clock,
        )
        token = self.fleet.claim_token(name, now=self.clock())
        await enrollment.enroll(token=token, csr_pem=DeviceKey.new(name).csr())
        async with self.database.reading() as session:
            return int((await session.get_one(Device, name)).certificate_serial, 16)

    async def revoke(self, name: str) -> None:
        async with self.database.writing() as session:
            now_ms = unix_ms(self.clock())
            await session.execute(update(Device).where(Device.id == name).values(revoked_ms=now_ms))


@pytest.fixture
def servers(fleet: Fleet, database: Database, clock: FakeClock) -> Servers:
    return Servers(fleet, database, clock)


async def test_processes_tell_the_same_and_none_goes_back(servers: Servers) -> None:
    one, other = servers.process(), servers.process()
    serial = await servers.enroll("cam")
    held = Held(tuple(DeviceCas(servers.online).certificates), ())
    for each in (one, other, one, other, servers.process()):
        held = acceptance.accepted(held, (await each.current()).authorities, now=servers.clock())
    assert await one.current() == await other.current()
    await servers.revoke("cam")
    told = await other.current()
    assert told.shut_out == ["cam"]
    assert revocation_list.listed(told.authorities[0].list_pem) == {serial}
    held = acceptance.accepted(held, told.authorities, now=servers.clock())
    assert await one.current() == told
    servers.clock.now += revocation_list.RENEWED_AFTER * 1.01
    renewed = await one.current()
    assert renewed != told
    acceptance.accepted(held, renewed.authorities, now=servers.clock())
    assert await other.current() == renewed


async def test_a_new_authority_is_proven_and_a_retired_one_stays_away(
    servers: Servers, fleet: Fleet
) -> None:
    process = servers.process()
    held = Held.of((await process.current()).authorities)
    ca = DeviceCa(
        key=(key := ec.generate_private_key(ec.SECP256R1())),
        certificate=following_authority("Skerry device CA", key, now=servers.clock()),
    )
    files = CaFiles(fleet.data.online, 2)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files.certificate.write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    process._cas.take()
    told = await process.current()
    held = acceptance.accepted(held, told.authorities, now=servers.clock())
    assert [each.subject for each in held.certificates][1:] == [ca.certificate.subject]
    async with servers.database.writing() as session:
        old = process._cas.key_ids[0]
        await publication.retire(session, [old], now=servers.clock())
    for each in (process, servers.process()):  # both still have its files
        (left,) = (await each.current()).authorities
        assert left.certificate_pem == told.authorities[1].certificate_pem


async def test_what_another_server_signed_is_told_if_it_is_proven(servers: Servers) -> None:
    """Its key lies elsewhere; a row that somebody wrote into the database proves nothing."""
    process = servers.process()
    await process.current()
    mine = process._cas.issuing
    for position, linked in enumerate((True, False)):
        key = ec.generate_private_key(ec.SECP256R1())
        made = following_authority(f"Skerry device CA {position}", key, now=servers.clock())
        signed = revocation_list.signed(
            DeviceCa(key=key, certificate=made), [], before=None, now=servers.clock()
        )
        link = mine.link(made).public_bytes(Encoding.PEM).decode() if linked else ""
        async with servers.database.writing() as session:
            session.add(
                BrokerAuthority(
                    key_id=f"{position}",
                    certificate_pem=made.public_bytes(Encoding.PEM).decode(),
                    link_pem=link,
                    list_pem=signed.pem,
                    number=signed.number,
                    dated_ms=0,
                    signed_ms=0,
                    made_ms=unix_ms(made.not_valid_before_utc),
                )
            )
    told = Held.of((await process.current()).authorities)
    names = [each.subject.rfc4514_string()[:21] for each in told.certificates]
    assert len(names) == 2
    assert names[1].startswith("CN=Skerry device CA 0")


async def test_the_route(fleet: Fleet, database: Database) -> None:
    services = await wired(fleet, database)
    async with database.writing() as session:
        session.add(Tenant(name="other"))
    day = timedelta(days=1)
    token, _ = await services.accounts.create(name="edge", role=Role.BROKER, lifetime=day)
    foreign, _ = await services.accounts.create(
        name="spy", role=Role.BROKER, lifetime=day, tenant="other"
    )
    async with client_of(services) as client:
        assert (await client.get(ROUTE, headers=bearer(foreign))).status_code == 403
        assert (await client.get("/api/v1/devices", headers=bearer(token))).status_code == 403
        first = await client.get(ROUTE, headers=bearer(token))
        assert first.status_code == 200
        (edge,) = await services.followers.all()
        assert (edge.name, edge.behind_since) == ("edge", edge.fetched)
        named = {**bearer(token), "If-None-Match": first.headers["ETag"]}
        again = await client.get(ROUTE, headers=named)
        assert (again.status_code, again.content) == (304, b"")
        (edge,) = await services.followers.all()
        assert edge.behind_since is None
        admin, _ = await services.accounts.create(name="a", role=Role.ADMIN, lifetime=day)
        shown = (await client.get("/api/v1/trust/expiries", headers=bearer(admin))).json()
        levels = {each["name"]: each["level"] for each in shown["expiries"]}
        assert levels["revocation list of the broker follower edge"] == "ok"
        assert levels["token of the broker follower edge"] == "critical"
        metrics = (await client.get("/metrics", headers=bearer(admin))).text
        assert 'skerry_broker_follower_behind_seconds{follower="edge"} 0.0' in metrics
    async with database.reading() as session:
        assert len((await session.scalars(select(BrokerAuthority))).all()) == 1

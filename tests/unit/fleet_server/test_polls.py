"""Polls: what is answered from memory is what the database would answer, or nothing."""

from datetime import datetime

import pytest
from sqlalchemy import update

from fleet_server.assignments.tables import Assignment
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.devices import changes
from fleet_server.devices.certificates import LIFETIME, DeviceCa
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.polls import STALE_S, Polls
from fleet_server.devices.service import Devices
from fleet_server.devices.tables import Device
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import NotAuthenticatedError
from tests.unit.fleet_server.authority import DeviceKey, Fleet
from tests.unit.fleet_server.conftest import FakeClock


class World:
    """One device that polls two server processes on one database."""

    def __init__(self, fleet: Fleet, database: Database, clock: FakeClock) -> None:
        online = fleet.data.online
        self.fleet, self.database, self.clock = fleet, database, clock
        self.enrollment = Enrollment(
            database=database,
            verifier=ClaimVerifier.load(online / "claim.pub.pem"),
            ca=DeviceCa.load(
                key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt"
            ),
            clock=clock,
        )
        self.polls, self.other = (
            Polls(database=database, clock=clock, monotonic=self.monotonic) for _ in range(2)
        )
        self.devices = Devices(database=database, connections=[self.other], clock=clock)
        self.key = DeviceKey.new("cam-1")

    def monotonic(self) -> float:
        return self.clock.now.timestamp()

    async def enroll(self, *, replaces: bool = False) -> None:
        token = self.fleet.claim_token("cam-1", now=self.clock.now, replaces=replaces)
        await self.enrollment.enroll(token=token, csr_pem=self.key.csr())

    async def assign(self, document: bytes) -> None:
        async with self.database.writing() as session:
            await session.merge(
                Assignment(
                    device_id="cam-1",
                    version=1,
                    signed_ms=0,
                    expires_ms=0,
                    entries="[]",
                    document=document,
                )
            )
            await session.flush()
            await changes.record(session, ["cam-1"])

    def token(self, key: DeviceKey | None = None) -> str:
        now = int(self.clock.now.timestamp())
        return (key or self.key).token(iat=now, exp=now + 60)

    def remembered(self, etag: str, token: str | None = None, polls: Polls | None = None) -> bool:
        headers = [
            (b"authorization", f"Bearer {token or self.token()}".encode()),
            (b"if-none-match", etag.encode()),
        ]
        found = (polls or self.polls).not_modified(headers)
        assert found in {None, etag.encode()}
        return found is not None


@pytest.fixture
async def world(fleet: Fleet, database: Database, clock: FakeClock) -> World:
    made = World(fleet, database, clock)
    await made.enroll()
    await made.assign(b"one")
    for polls in (made.polls, made.other):
        await polls.look()
    return made


async def test_a_device_that_has_the_newest_is_answered_from_memory(world: World) -> None:
    document = await world.polls.newest(world.token())
    assert document.content == b"one"
    assert world.remembered(document.etag)
    assert world.remembered(document.etag, world.token()), "a token seen for the first time"
    assert not world.remembered('"another"')
    for stranger in (world.token(DeviceKey.new("cam-1")), world.token(DeviceKey.new("cam-2")), "x"):
        assert not world.remembered(document.etag, stranger)


async def test_a_device_without_an_assignment_is_told_so(
    fleet: Fleet, database: Database, clock: FakeClock
) -> None:
    world = World(fleet, database, clock)
    await world.enroll()
    await world.polls.look()
    document = await world.polls.newest(world.token())
    assert document.content is None
    assert world.remembered(document.etag)


async def test_a_new_assignment_is_seen_with_the_next_look(world: World) -> None:
    document = await world.polls.newest(world.token())
    await world.assign(b"two")
    await world.polls.look()
    assert not world.remembered(document.etag)
    assert (await world.polls.newest(world.token())).content == b"two"


async def test_what_was_read_while_a_change_came_in_is_not_kept(world: World) -> None:
    real = world.database.reading

    def changed_meanwhile() -> object:
        world.polls._changes += 1  # as `look` does while the query runs
        return real()

    world.database.reading = changed_meanwhile  # type: ignore[method-assign, assignment]
    document = await world.polls.newest(world.token())
    assert not world.remembered(document.etag)


async def test_without_the_log_of_changes_nothing_is_remembered_for_long(world: World) -> None:
    document = await world.polls.newest(world.token())
    world.clock.advance(seconds=STALE_S)
    assert world.remembered(document.etag)
    world.clock.advance(seconds=0.1)
    assert not world.remembered(document.etag)
    await world.polls.look()
    assert world.remembered(document.etag)


async def test_a_token_counts_until_it_expires(world: World) -> None:
    token = world.token()
    document = await world.polls.newest(token)
    world.clock.advance(seconds=100)
    await world.polls.look()
    assert not world.remembered(document.etag, token)


async def test_a_device_that_is_shut_out_is_forgotten_at_once_here_and_soon_elsewhere(
    world: World,
) -> None:
    token = world.token()
    for polls in (world.polls, world.other):
        etag = (await polls.newest(token)).etag
    await world.devices.revoke("cam-1")
    assert not world.remembered(etag, token, world.other)
    assert world.remembered(etag, token, world.polls)
    await world.polls.look()
    assert not world.remembered(etag, token)
    with pytest.raises(NotAuthenticatedError, match="revoked"):
        await world.polls.newest(token)


async def test_an_old_key_does_not_live_on_in_a_verified_token(world: World) -> None:
    old = world.token()
    etag = (await world.polls.newest(old)).etag
    world.key = DeviceKey.new("cam-1")
    await world.enroll(replaces=True)
    await world.polls.look()
    await world.polls.newest(world.token())
    assert world.remembered(etag)
    assert not world.remembered(etag, old)


async def test_an_expired_certificate_ends_it(world: World) -> None:
    world.clock.now += LIFETIME
    token = world.token()
    async with world.database.writing() as session:
        ends = unix_ms(world.clock.now) + 1000
        await session.execute(update(Device).values(certificate_expires_ms=ends))
    await world.polls.look()
    etag = (await world.polls.newest(token)).etag
    assert world.remembered(etag, token)
    world.clock.advance(seconds=1)
    assert not world.remembered(etag, token)


async def test_polls_say_that_the_device_lives(world: World) -> None:
    etag = (await world.polls.newest(world.token())).etag
    await world.polls.write_seen()
    first = await seen(world)
    world.clock.advance(seconds=1)
    assert world.remembered(etag)
    await world.polls.write_seen()
    assert await seen(world) == first + 1000 == unix_ms(world.clock.now)
    world.clock.advance(seconds=1)
    await world.polls.write_seen()
    assert await seen(world) == first + 1000, "nobody polled since"


async def seen(world: World) -> int:
    device = (await world.devices.get("cam-1")).device
    assert device.last_seen_ms is not None
    assert isinstance(world.clock.now, datetime)
    return device.last_seen_ms

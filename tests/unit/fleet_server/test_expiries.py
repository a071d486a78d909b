"""What runs out is told well before: days for what renews itself, months for what people sign."""

from datetime import timedelta

import pytest
from tuf.api.metadata import Metadata, Root

from fleet_server import migrate
from fleet_server.database import sqlite_url
from fleet_server.devices.authorities import DeviceCas
from fleet_server.releases.repository import Repository
from fleet_server.trust import ca_commands, expiries
from fleet_server.trust.expiries import Expiry, Level
from fleet_server.trust.succession import put_into_office
from tests.unit.fleet_server.authority import FAMILY, Fleet
from tests.unit.fleet_server.conftest import FakeClock

DAY = timedelta(days=1)


def all_of(fleet: Fleet, clock: FakeClock) -> list[Expiry]:
    repository = Repository(fleet.data.repository, fleet.data.online)
    repository.heal(now=clock())
    director = Metadata[Root].from_bytes(fleet.authority.director_root.read_bytes()).signed
    return expiries.all_of(repository.published, director, fleet.data.online)


@pytest.fixture
def found(fleet: Fleet, clock: FakeClock) -> dict[str, Expiry]:
    return {one.name: one for one in all_of(fleet, clock)}


@pytest.mark.parametrize(
    ("name", "early", "who"),
    [
        ("release root", 60 * DAY, "draft-root"),
        ("release targets", 60 * DAY, "draft-targets"),
        (f"list of {FAMILY}", 60 * DAY, "draft-list"),
        ("director root", 60 * DAY, "draft-root --repository director"),
        ("release snapshot", 2 * DAY, "maintenance_failed"),
        ("release timestamp", DAY / 3, "maintenance_failed"),
        ("server certificate", 45 * DAY, "install-certificate"),
        ("ingest certificate", 30 * DAY, "maintenance_failed"),
        ("device CA", 365 * DAY, "new-device-ca"),
        ("fleet CA", 365 * DAY, "new-fleet-ca"),
    ],
)
def test_it_is_told_early_and_what_to_do(
    found: dict[str, Expiry], name: str, early: timedelta, who: str
) -> None:
    one = found[name]
    assert who in one.action
    assert len(one.key_ids) >= 1
    moments = {
        early * 1.01: Level.OK,
        early: Level.WARNING,
        early / 4: Level.CRITICAL,
        timedelta(): Level.EXPIRED,
        -DAY: Level.EXPIRED,
    }
    assert {left: one.level(one.expires - left) for left in moments} == moments


async def test_authorities_are_called_by_what_they_do(fleet: Fleet, clock: FakeClock) -> None:
    """One that waits for the broker does not make the one that issues a former one."""

    def called() -> dict[str, str]:
        return {one.name: one.action for one in all_of(fleet, clock) if "device CA" in one.name}

    await migrate.upgrade(sqlite_url(fleet.data.database))
    online = fleet.data.online
    old = DeviceCas(online).issuing.key_id[:16]
    files = await ca_commands.make_device_ca(fleet.data.root, now=clock())
    new = files.load().key_id[:16]
    assert set(waiting := called()) == {"device CA", f"next device CA {new}"}
    assert "ca show" in waiting["device CA"]
    put_into_office(files)
    assert set(done := called()) == {f"former device CA {old}", "device CA"}
    assert "new-device-ca" in done["device CA"]


def test_nothing_of_a_new_fleet_is_urgent(found: dict[str, Expiry], clock: FakeClock) -> None:
    assert {one.level(clock()) for one in found.values()} == {Level.OK}

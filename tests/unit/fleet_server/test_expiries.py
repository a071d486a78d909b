"""What runs out is told well before: days for what renews itself, months for what people sign."""

from datetime import timedelta

import pytest
from tuf.api.metadata import Metadata, Root

from fleet_server.releases.repository import Repository
from fleet_server.trust import expiries
from fleet_server.trust.expiries import Expiry, Level
from tests.unit.fleet_server.authority import FAMILY, Fleet
from tests.unit.fleet_server.conftest import FakeClock

DAY = timedelta(days=1)


@pytest.fixture
def found(fleet: Fleet, clock: FakeClock) -> dict[str, Expiry]:
    repository = Repository(fleet.data.repository, fleet.data.online)
    repository.heal(now=clock())
    director = Metadata[Root].from_bytes(fleet.authority.director_root.read_bytes()).signed
    told = expiries.all_of(repository.published, director, fleet.data.online)
    return {one.name: one for one in told}


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


def test_nothing_of_a_new_fleet_is_urgent(found: dict[str, Expiry], clock: FakeClock) -> None:
    assert {one.level(clock()) for one in found.values()} == {Level.OK}

"""A provisioned fleet per session, a copy of it with its releases and a database per test.

Whatever takes `database` runs twice: on SQLite and on PostgreSQL.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from argon2 import PasswordHasher, profiles

from fleet_server.accounts import passwords
from fleet_server.database import Database
from fleet_server.releases.repository import Repository
from fleet_server.releases.service import Releases
from tests.simulators.migrated_file import MigratedFile
from tests.simulators.postgresql_cluster import Cluster
from tests.unit.fleet_server.authority import Fleet


class FakeClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.provision(tmp_path_factory.mktemp("authority") / "authority")


@pytest.fixture(scope="session")
def invitations(provisioned: Fleet) -> dict[str, str]:
    """The claim tokens of the devices that the tests assign to."""
    many = [f"cam-{number:03}-{'x' * 40}" for number in range(200)]
    many += [f"cam-{number:03}" for number in range(300)]
    many += [f"many-{number}" for number in range(450)]
    return provisioned.claim_tokens("late", "cam-1", "cam-2", *many)


@pytest.fixture
def fleet(provisioned: Fleet, tmp_path: Path) -> Fleet:
    return provisioned.copy_to(tmp_path / "authority")


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a database with the schema of this version."""
    if request.param == "sqlite":
        migrated = request.getfixturevalue("migrated_file")
        assert isinstance(migrated, MigratedFile)
        yield await migrated.copy_to(tmp_path / "fleet.db")
        return
    cluster = request.getfixturevalue("cluster")
    assert isinstance(cluster, Cluster)
    url = await cluster.create()
    yield url
    await cluster.drop(url)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let passwords cost nothing; `test_passwords` shows what they cost."""
    cheapest = partial(PasswordHasher.from_parameters, profiles.CHEAPEST)
    monkeypatch.setattr(passwords, "PasswordHasher", cheapest)


@pytest.fixture
def repository(fleet: Fleet, clock: FakeClock) -> Repository:
    opened = Repository(fleet.data.repository, fleet.data.online)
    opened.heal(now=clock())
    return opened


@pytest.fixture
def releases(repository: Repository, database: Database, clock: FakeClock) -> Releases:
    return Releases(repository=repository, database=database, clock=clock)

"""The repository of releases heals what was interrupted, renews its roles and verifies itself."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import maintenance
from fleet_server.assignments.director import Director
from fleet_server.assignments.service import Assignments
from fleet_server.assignments.signer import AssignmentSigner
from fleet_server.database import Database
from fleet_server.errors import ConflictError, NotFoundError, SetupError, UnavailableError
from fleet_server.releases.repository import Repository
from fleet_server.releases.service import Releases, checked_metadata_name
from fleet_server.releases.verification import verify_metadata
from tests.unit.fleet_server.assigning import Index as ReleaseIndex
from tests.unit.fleet_server.assigning import InProcessSigner, Published
from tests.unit.fleet_server.authority import Fleet, release, signed_role
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.uploads import files_below, parts, publish, versions


class FailingDatabase(Database):
    """A database that cannot write for a while, such as on a full disk."""

    failing = False

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        if self.failing:
            raise UnavailableError("the database failed: disk full")
        async with super().writing() as session:
            yield session


@pytest.fixture
async def assignments(
    fleet: Fleet, database: Database, clock: FakeClock
) -> AsyncIterator[Assignments]:
    signer = AssignmentSigner.open(fleet.data, clock)
    yield Assignments(
        database=database,
        releases=ReleaseIndex(),
        signer=InProcessSigner(signer),
        downlink=Published(),
        director=Director(fleet.data.director),
        clock=clock,
    )
    signer.close()


@pytest.fixture
async def failing(database_url: str) -> AsyncIterator[FailingDatabase]:
    opened = FailingDatabase(database_url)
    yield opened
    await opened.close()


@pytest.mark.parametrize("healed_by", ["maintenance", "the next upload"])
async def test_a_release_that_the_database_failed_to_list_is_listed_later(
    fleet: Fleet,
    repository: Repository,
    assignments: Assignments,
    failing: FailingDatabase,
    healed_by: str,
) -> None:
    releases = Releases(repository=repository, database=failing, clock=FakeClock())
    new = release()
    upload = parts(signed_role(fleet.publisher(), new), new)
    failing.failing = True
    with pytest.raises(UnavailableError):
        await publish(releases, *upload)
    assert await versions(releases) == []
    failing.failing = False
    if healed_by == "maintenance":
        await maintenance.once(releases, assignments)
    else:
        with pytest.raises(ConflictError):
            await publish(releases, *upload)
    assert await versions(releases) == ["1.0.0"]


async def test_what_an_interrupted_commit_left_goes_at_the_next_start(
    fleet: Fleet, releases: Releases, clock: FakeClock
) -> None:
    one = release()
    await publish(releases, *parts(signed_role(fleet.publisher(), one), one))
    kept = list(files_below(fleet.data.repository))
    metadata = fleet.data.repository / "metadata"
    leftovers = [
        fleet.data.repository / "staging" / "upload-1" / "0",
        fleet.data.repository / "targets" / "models" / one.family / "2.0.0" / f"{'0' * 64}.x",
        metadata / f"3.{one.family}.json",
        metadata / "3.snapshot.json",
        metadata / ".timestamp.json.tmp",
    ]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    Repository(fleet.data.repository, fleet.data.online).heal(now=clock())
    assert list(files_below(fleet.data.repository)) == kept


async def test_a_crash_before_the_index_is_healed_at_the_next_start(
    fleet: Fleet, releases: Releases, repository: Repository, clock: FakeClock
) -> None:
    one = release()
    published = repository.published
    upload = verify_metadata(
        signed_role(fleet.publisher(), one),
        targets=published.targets,
        current=published.current,
        now=clock(),
    )
    folder = repository.files.staging_folder("upload-1", size_bytes=1)
    staged = {path: folder / str(number) for number, path in enumerate(one.by_path)}
    for path, content in one.by_path.items():
        staged[path].write_bytes(content)
    repository.commit(upload, staged, now=clock())
    assert await versions(releases) == []
    for _ in range(2):
        await releases.reindex()
        assert await versions(releases) == ["1.0.0"]


def test_online_roles_are_renewed_before_they_expire(
    repository: Repository, clock: FakeClock
) -> None:
    began = repository.published
    assert not repository.renew(now=clock())
    for _ in range(20):
        clock.advance(hours=13)
        repository.renew(now=clock())
        assert repository.published.timestamp.expires > clock()
        assert repository.published.snapshot.expires > clock()
    assert repository.published.timestamp.version == began.timestamp.version + 20
    assert repository.published.snapshot.version > began.snapshot.version


def test_a_server_that_slept_for_a_year_renews_at_start(fleet: Fleet, clock: FakeClock) -> None:
    clock.advance(days=100)
    repository = Repository(fleet.data.repository, fleet.data.online)
    repository.heal(now=clock())
    assert repository.published.timestamp.expires > clock()
    assert repository.published.snapshot.expires > clock()


@pytest.mark.parametrize("damage", ["forged", "missing", "foreign key"])
def test_a_repository_that_does_not_verify_stops_the_start(fleet: Fleet, damage: str) -> None:
    metadata = fleet.data.repository / "metadata"
    if damage == "forged":
        path = metadata / "1.targets.json"
        path.write_bytes(path.read_bytes().replace(b"fashion", b"fashiom"))
    elif damage == "missing":
        (metadata / "timestamp.json").unlink()
    else:
        shutil.copy(fleet.data.signer / "assignment.pem", fleet.data.online / "snapshot.pem")
    with pytest.raises(SetupError):
        Repository(fleet.data.repository, fleet.data.online)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "timestamp",
        "../timestamp.json",
        "a/b.json",
        "x.timestamp.json",
        "1.2.x.json",
        "1..json",
        ".json",
        "1.root.json\n",
        "①.root.json",
    ],
)
def test_names_that_are_no_metadata(name: str) -> None:
    with pytest.raises(NotFoundError):
        checked_metadata_name(name)


@pytest.mark.parametrize("name", ["timestamp.json", "12.root.json", "3.fashion_mnist.json"])
def test_names_of_metadata(name: str) -> None:
    assert checked_metadata_name(name) == name

"""The release repository through python-tuf: what is trusted, and at which time."""

from datetime import timedelta
from pathlib import Path

import pytest

from edge_agent.control.release_repository import ReleaseRepository
from edge_agent.control.server_client import ServerUnreachableError
from edge_agent.control.trust import TrustError
from tests.simulators.device_releases import release
from tests.simulators.device_repository import START, SimulatedRepository

ONE = release("1.0.0")


@pytest.fixture
def repository() -> SimulatedRepository:
    repository = SimulatedRepository()
    repository.add(ONE)
    return repository


def client(tmp_path: Path, repository: SimulatedRepository) -> ReleaseRepository:
    return ReleaseRepository(
        pinned_root=repository.root, cache=tmp_path / "release", server=repository
    )


def test_a_signed_target_is_found(tmp_path: Path, repository: SimulatedRepository) -> None:
    target = client(tmp_path, repository).refresh(START).target(ONE.manifest_path)
    assert target is not None
    assert target.length == len(ONE.manifest_bytes)


@pytest.mark.parametrize("path", ["models/animals/9.9.9/manifest.json", "models/plants/1.0.0/x"])
def test_what_nobody_signed_is_not_found(
    tmp_path: Path, repository: SimulatedRepository, path: str
) -> None:
    assert client(tmp_path, repository).refresh(START).target(path) is None


def test_a_target_outside_the_publishers_delegation_is_not_found(tmp_path: Path) -> None:
    repository = SimulatedRepository(family="animals")
    repository.put_target("models/plants/1.0.0/manifest.json", b"{}")
    repository.publish()
    found = client(tmp_path, repository).refresh(START)
    assert found.target("models/plants/1.0.0/manifest.json") is None


def test_expiry_is_judged_by_the_trusted_time(
    tmp_path: Path, repository: SimulatedRepository
) -> None:
    repository.publish(timestamp_expires=START + timedelta(days=1))
    client(tmp_path, repository).refresh(START + timedelta(hours=23))
    with pytest.raises(TrustError, match="expired"):
        client(tmp_path, repository).refresh(START + timedelta(hours=25))


def test_a_repository_of_another_root_is_refused(
    tmp_path: Path, repository: SimulatedRepository
) -> None:
    other = SimulatedRepository()
    mixed = ReleaseRepository(pinned_root=other.root, cache=tmp_path / "r", server=repository)
    with pytest.raises(TrustError):
        mixed.refresh(START)


def test_the_pinned_root_counts_and_not_the_cached_one(
    tmp_path: Path, repository: SimulatedRepository
) -> None:
    """An attacker who could write the cache still cannot move the root of trust."""
    attacker = SimulatedRepository()
    attacker.add(ONE)
    cache = tmp_path / "release"
    ReleaseRepository(pinned_root=attacker.root, cache=cache, server=attacker).refresh(START)
    with pytest.raises(TrustError):
        ReleaseRepository(pinned_root=repository.root, cache=cache, server=attacker).refresh(START)


def test_going_back_to_older_metadata_is_refused(
    tmp_path: Path, repository: SimulatedRepository
) -> None:
    old = dict(repository.files)
    repository.publish()
    client(tmp_path, repository).refresh(START)
    repository.files = old
    with pytest.raises(TrustError):
        client(tmp_path, repository).refresh(START)


@pytest.mark.parametrize("part", ["timestamp", "snapshot", "targets", "animals"])
def test_spoilt_metadata_is_refused(
    tmp_path: Path, repository: SimulatedRepository, part: str
) -> None:
    repository.faults.content[f"{part}.json"] = b'{"signatures": [], "signed": {}}'
    with pytest.raises(TrustError):
        client(tmp_path, repository).refresh(START).target(ONE.manifest_path)


def test_endless_metadata_is_cut_off(tmp_path: Path, repository: SimulatedRepository) -> None:
    repository.faults.content["timestamp.json"] = b" " * 100_000
    with pytest.raises(TrustError, match="exceeding the maximum allowed length of 16384"):
        client(tmp_path, repository).refresh(START)


def test_a_server_that_is_away_is_said_to_be(
    tmp_path: Path, repository: SimulatedRepository
) -> None:
    repository.faults.unreachable = True
    with pytest.raises(ServerUnreachableError, match="simulated server is away"):
        client(tmp_path, repository).refresh(START)


@pytest.mark.parametrize("status", [401, 500, 503])
def test_a_server_that_refuses_is_asked_again_later(
    tmp_path: Path, repository: SimulatedRepository, status: int
) -> None:
    repository.faults.refuse["timestamp"] = status
    with pytest.raises(ServerUnreachableError):
        client(tmp_path, repository).refresh(START)


def test_a_damaged_cache_is_fetched_anew(tmp_path: Path, repository: SimulatedRepository) -> None:
    client(tmp_path, repository).refresh(START).target(ONE.manifest_path)
    for path in (tmp_path / "release").rglob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"{")
    assert client(tmp_path, repository).refresh(START).target(ONE.manifest_path) is not None


def test_what_a_death_left_half_written_is_removed(
    tmp_path: Path, repository: SimulatedRepository
) -> None:
    repository.publish()
    client(tmp_path, repository).refresh(START)
    cache = tmp_path / "release"
    before = {path.name for path in cache.iterdir()}
    (cache / "tmpq1w2e3").write_bytes(b"{")
    (cache / "tmp-family.json").write_bytes(b"{}")
    client(tmp_path, repository).refresh(START)
    assert {path.name for path in cache.iterdir()} == before | {"tmp-family.json"}

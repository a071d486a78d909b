"""Downloads: resumed, bounded, verified, and nothing unverified under a final name."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.control.download import BlobStore, CancelledDownloadError, DownloadError
from edge_agent.control.server_client import (
    TARGETS_ROUTE,
    ServerRefusedError,
    ServerUnreachableError,
)
from edge_agent.store import StoreError
from tests.simulators.device_repository import SimulatedRepository

PATH = "models/animals/1.0.0/model.onnx"
CONTENT = bytes(range(256)) * 256
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def repository() -> SimulatedRepository:
    repository = SimulatedRepository()
    repository.put_target(PATH, CONTENT)
    return repository


@pytest.fixture
def blobs(tmp_path: Path, repository: SimulatedRepository) -> BlobStore:
    return BlobStore(folder=tmp_path, server=repository)


def fetch(blobs: BlobStore, *, cancelled: Callable[[], bool] = lambda: False) -> Path:
    return blobs.fetch(PATH, length=len(CONTENT), sha256=SHA256, cancelled=cancelled)


def names(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()}


def test_a_file_gets_its_name_when_it_is_verified(blobs: BlobStore, tmp_path: Path) -> None:
    assert fetch(blobs).read_bytes() == CONTENT
    assert names(tmp_path) == {SHA256}


def test_it_is_asked_for_under_its_consistent_name(
    blobs: BlobStore, repository: SimulatedRepository
) -> None:
    fetch(blobs)
    asked = f"{TARGETS_ROUTE}models/animals/1.0.0/{SHA256}.model.onnx"
    assert repository.requests == [(asked, None)]


def test_a_file_that_is_there_is_not_fetched_again(
    blobs: BlobStore, repository: SimulatedRepository
) -> None:
    fetch(blobs)
    repository.faults.unreachable = True
    assert fetch(blobs).read_bytes() == CONTENT


def test_a_file_that_rotted_on_the_disk_is_fetched_again(blobs: BlobStore, tmp_path: Path) -> None:
    fetch(blobs)
    (tmp_path / SHA256).write_bytes(b"\0" + CONTENT[1:])
    assert fetch(blobs).read_bytes() == CONTENT


def test_a_broken_download_is_resumed_where_it_broke(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    repository.faults.break_after = 8192
    with pytest.raises(ServerUnreachableError):
        fetch(blobs)
    assert names(tmp_path) == {f"{SHA256}.part"}
    repository.faults.break_after = None
    assert fetch(blobs).read_bytes() == CONTENT
    assert repository.requests[-1][1] == "bytes=8192-"


def test_a_server_that_ignores_range_is_coped_with(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT[:5000])
    repository.faults.ignore_range = True
    assert fetch(blobs).read_bytes() == CONTENT


def test_a_body_that_ends_early_is_resumed_later(
    blobs: BlobStore, repository: SimulatedRepository
) -> None:
    repository.faults.end_after = 4096
    with pytest.raises(ServerUnreachableError, match="ended after 4096"):
        fetch(blobs)
    repository.faults.end_after = None
    assert fetch(blobs).read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_server(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT)
    repository.faults.unreachable = True
    assert fetch(blobs).read_bytes() == CONTENT


@pytest.mark.parametrize("partial", [b"", b"junk" * 100, CONTENT + b"more"])
def test_a_spoilt_partial_file_costs_a_download_and_no_more(
    blobs: BlobStore, tmp_path: Path, partial: bytes
) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(partial)
    try:
        fetch(blobs)
    except DownloadError:
        assert names(tmp_path) == set()
    assert fetch(blobs).read_bytes() == CONTENT


def test_other_bytes_are_refused_and_not_kept(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    repository.faults.content["model.onnx"] = b"x" * len(CONTENT)
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(blobs)
    assert names(tmp_path) == set()


def test_more_than_the_signed_length_is_not_even_written(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    repository.faults.content["model.onnx"] = CONTENT * 10
    with pytest.raises(DownloadError, match="longer than its signed"):
        fetch(blobs)
    assert names(tmp_path) == set()


def test_an_unsatisfiable_range_throws_the_partial_file_away(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT[:5000])
    repository.faults.refuse["model.onnx"] = 416
    with pytest.raises(ServerRefusedError):
        fetch(blobs)
    assert names(tmp_path) == set()


def test_the_disk_is_checked_first(tmp_path: Path, repository: SimulatedRepository) -> None:
    blobs = BlobStore(folder=tmp_path, server=repository, free_bytes=lambda _path: 1000)
    with pytest.raises(StoreError, match="the disk has 1000 free"):
        fetch(blobs)
    assert repository.requests == []


def test_a_cancelled_download_keeps_what_arrived(blobs: BlobStore, tmp_path: Path) -> None:
    asked = iter([False, False, False])
    with pytest.raises(CancelledDownloadError):
        fetch(blobs, cancelled=lambda: next(asked, True))
    assert names(tmp_path) == {f"{SHA256}.part"}
    assert fetch(blobs).read_bytes() == CONTENT


def test_collecting_keeps_what_is_named(blobs: BlobStore, tmp_path: Path) -> None:
    fetch(blobs)
    for name in ("a" * 64, "b" * 64 + ".part", SHA256 + ".part"):
        (tmp_path / name).write_bytes(b"x")
    assert blobs.collect({SHA256}) == ["a" * 64, "b" * 64 + ".part"]
    assert names(tmp_path) == {SHA256, SHA256 + ".part"}

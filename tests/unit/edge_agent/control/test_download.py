"""Downloads: resumed, bounded, verified, and nothing unverified under a final name."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_agent.control.download import BlobStore, Course
from edge_agent.control.pace import Pace
from edge_agent.control.partial_file import CancelledDownloadError, DownloadError
from edge_agent.control.server_client import (
    TARGETS_ROUTE,
    ServerRefusedError,
    ServerUnreachableError,
    UnfitAnswerError,
)
from edge_agent.store import DiskFullError, refusal
from tests.simulators.bad_sectors import unreadable
from tests.simulators.device_clock import ManualClock
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
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def blobs(tmp_path: Path, repository: SimulatedRepository, clock: ManualClock) -> BlobStore:
    return BlobStore(folder=tmp_path, server=repository, pace=Pace(clock=clock))


def fetch(blobs: BlobStore, *, cancelled: Callable[[], bool] = lambda: False) -> Path:
    return blobs.fetch(PATH, length=len(CONTENT), sha256=SHA256, course=Course(cancelled=cancelled))


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


@pytest.mark.parametrize(
    "partial", [b"", b"junk" * 100, CONTENT + b"more", b"x" * len(CONTENT), b"x" + CONTENT[1:]]
)
def test_a_spoilt_partial_file_costs_a_download_and_no_more(
    blobs: BlobStore, tmp_path: Path, partial: bytes
) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(partial)
    assert fetch(blobs).read_bytes() == CONTENT


def test_a_spoilt_beginning_and_a_wrong_file_are_refused(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(b"junk" * 100)
    repository.faults.content["model.onnx"] = b"x" * len(CONTENT)
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(blobs)
    assert names(tmp_path) == set()
    assert [wanted for _, wanted in repository.requests] == ["bytes=400-", None]


def test_an_answer_of_another_size_is_not_begun(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path
) -> None:
    """A proxy's page for people, say, with status 200."""
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT[:5000])
    repository.faults.stated_bytes = 512
    with pytest.raises(UnfitAnswerError, match="has 512 bytes; signed are 65536"):
        fetch(blobs)
    repository.faults.stated_bytes = len(CONTENT)
    assert fetch(blobs).read_bytes() == CONTENT
    assert repository.requests[-1][1] == "bytes=5000-"


@pytest.mark.parametrize("suffix", ["", ".part"])
def test_what_cannot_be_read_is_fetched_beside_it(
    blobs: BlobStore, repository: SimulatedRepository, tmp_path: Path, suffix: str
) -> None:
    held = tmp_path / f"{SHA256}{suffix}"
    held.write_bytes(CONTENT)
    with unreadable(held):
        repository.faults.unreachable = True
        with pytest.raises(ServerUnreachableError):
            fetch(blobs)
        assert (suffix == "") == held.exists(), "a part is no copy of anything"
        repository.faults.unreachable = False
        assert fetch(blobs).read_bytes() == CONTENT
    assert names(tmp_path) == {SHA256}


def test_two_downloads_of_one_file_take_turns(
    blobs: BlobStore, repository: SimulatedRepository
) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: fetch(blobs).read_bytes(), range(4)))
    assert found == [CONTENT] * 4
    assert len(repository.requests) == 1


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


def test_the_disk_is_checked_first(
    tmp_path: Path, repository: SimulatedRepository, clock: ManualClock
) -> None:
    blobs = BlobStore(
        folder=tmp_path, server=repository, pace=Pace(clock=clock), free_bytes=lambda _path: 1000
    )
    with pytest.raises(DiskFullError, match="1000 are free"):
        fetch(blobs)
    assert repository.requests == []


def test_room_is_made_for_all_of_an_update_of_what_nobody_needs(
    tmp_path: Path, repository: SimulatedRepository, clock: ManualClock
) -> None:
    """What an update that was called off has left does not keep the next one from coming."""
    disk = 52 * 2**20

    def free(folder: Path) -> int:
        return disk - sum(path.stat().st_size for path in folder.iterdir())

    blobs = BlobStore(folder=tmp_path, server=repository, pace=Pace(clock=clock), free_bytes=free)
    wanted = {"a" * 64: 20 * 2**20, "b" * 64: 10 * 2**20}
    for name, size in (("a" * 64 + ".part", 5), ("c" * 64, 5), ("d" * 64 + ".part", 10)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size * 2**20)
    blobs.make_room(wanted, keep=frozenset({"c" * 64}))
    assert names(tmp_path) == {"a" * 64 + ".part", "c" * 64}
    with pytest.raises(DiskFullError, match="make room on the device"):
        blobs.make_room({**wanted, "e" * 64: 5 * 2**20}, keep=frozenset({"c" * 64}))


@pytest.mark.parametrize(("number", "full"), [(28, True), (122, True), (5, False)])
def test_a_full_disk_is_told_from_a_broken_one(number: int, *, full: bool) -> None:
    assert isinstance(refusal("cannot write", OSError(number, "no")), DiskFullError) is full


def test_it_comes_no_faster_than_allowed(
    blobs: BlobStore, repository: SimulatedRepository, clock: ManualClock
) -> None:
    before_s = clock.monotonic_s()
    course = Course(cancelled=lambda: False, limit=lambda: 4096)
    blobs.fetch(PATH, length=len(CONTENT), sha256=SHA256, course=course)
    took_s = clock.monotonic_s() - before_s
    assert took_s == pytest.approx(len(CONTENT) / 4096, abs=1.5)  # a second's worth comes at once
    assert repository.slow_requests == 1


def test_a_limit_that_changes_holds_from_the_next_piece_on(clock: ManualClock) -> None:
    pace, limits = Pace(clock=clock), [1000, 1000, None]

    def limit() -> int | None:
        return limits.pop(0) if len(limits) > 1 else limits[0]

    before_s = clock.monotonic_s()
    pace.spend(10**9, limit=limit, cancelled=lambda: False)
    assert clock.monotonic_s() - before_s < 2.0
    pace.spend(5000, limit=lambda: 1000, cancelled=lambda: False)
    assert clock.monotonic_s() - before_s == pytest.approx(5.0, abs=2.0)


def test_a_slow_download_ends_at_once_when_it_is_no_longer_wanted(clock: ManualClock) -> None:
    asked = iter([False, False])
    Pace(clock=clock).spend(10**9, limit=lambda: 1024, cancelled=lambda: next(asked, True))
    assert clock.monotonic_s() < ManualClock().monotonic_s() + 1.0


def test_a_cancelled_download_keeps_what_arrived(blobs: BlobStore, tmp_path: Path) -> None:
    asked = iter([False, False, False])
    with pytest.raises(CancelledDownloadError):
        fetch(blobs, cancelled=lambda: next(asked, True))
    assert names(tmp_path) == {f"{SHA256}.part"}
    assert fetch(blobs).read_bytes() == CONTENT


def test_collecting_keeps_what_is_named(blobs: BlobStore, tmp_path: Path) -> None:
    fetch(blobs)
    for name in ("a" * 64, "b" * 64 + ".part", "c" * 64 + ".part", SHA256 + ".part"):
        (tmp_path / name).write_bytes(b"x")
    assert blobs.collect({SHA256, "c" * 64}) == [SHA256 + ".part", "a" * 64, "b" * 64 + ".part"]
    assert names(tmp_path) == {SHA256, "c" * 64 + ".part"}


def test_collecting_passes_over_folders(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "z").write_bytes(b"")
    assert blobs.collect(set()) == ["z"]

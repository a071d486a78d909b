"""Regions of shared memory: what is copied, what is refused, and files that change underneath."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.errors import ConflictError, RequestError, UnknownModelError
from edge_agent.inference.inference_request import InferenceRequest, Slice
from edge_agent.inference.shared_memory import INLINE_BYTES, Region, Regions, RegionStatus
from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype

LARGE = INLINE_BYTES + 1


def status(size: int, *, offset: int = 0, key: str = "file", name: str = "r") -> RegionStatus:
    return RegionStatus(name=name, key=key, offset=offset, byte_size=size)


def place(size: int, offset: int = 0, region: str = "r") -> Slice:
    return Slice(region=region, offset=offset, byte_size=size)


@given(st.data())
def test_what_is_written_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("regions")
    begin, size = data.draw(st.integers(0, 10_000)), data.draw(st.integers(1, 10_000))
    content = bytearray(os.urandom(begin + size + 10))
    (folder / "file").write_bytes(content)
    region = Region(status(size, offset=begin), folder=folder)
    offset = data.draw(st.integers(0, size))
    written = data.draw(st.binary(max_size=size - offset))
    region.write(place(size - offset, offset), written)
    content[begin + offset : begin + offset + len(written)] = written
    assert (folder / "file").read_bytes() == content
    at = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - at))
    assert region.read(place(length, at)) == content[begin + at : begin + at + length]


@pytest.mark.parametrize("size", [INLINE_BYTES, LARGE])
def test_small_and_large_parts_are_the_same(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(bytes(5 + size))
    region = Region(status(size, offset=5), folder=tmp_path)
    region.write(place(size), content)
    assert (tmp_path / "file").read_bytes() == bytes(5) + content
    assert region.read(place(size)) == content


@pytest.mark.parametrize("size", [8192, LARGE])
@pytest.mark.parametrize("left", [0, 1, 4096])
def test_a_file_that_has_shrunk_is_an_error(tmp_path: Path, size: int, left: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    region = Region(status(size), folder=tmp_path)
    os.truncate(path, left)
    with pytest.raises(RequestError, match=f"is smaller than the {size} bytes"):
        region.read(place(size))
    with pytest.raises(RequestError, match=f"the file has {left} bytes"):
        region.write(place(size), bytes(size))
    assert path.stat().st_size == left


def test_a_region_that_was_lost_once_is_registered_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    region = Region(status(8192), folder=tmp_path)
    os.truncate(path, 0)
    with pytest.raises(RequestError, match="is smaller than"):
        region.read(place(8192))
    path.write_bytes(b"x" * 8192)
    # What the mapping holds now is not the file, and the file is not too small.
    for attempt in (
        lambda: region.read(place(8192)),
        lambda: region.write(place(8192), bytes(8192)),
    ):
        with pytest.raises(RequestError, match="unregister it and register it anew"):
            attempt()
    assert Region(status(8192), folder=tmp_path).read(place(8192)) == b"x" * 8192


def test_a_file_that_was_removed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8))
    region = Region(status(8), folder=tmp_path)
    (tmp_path / "file").unlink()
    for attempt in (lambda: region.read(place(8)), lambda: region.write(place(8), b"12345678")):
        with pytest.raises(RequestError, match="has been removed: unregister it, create it"):
            attempt()


RACE = """
import os, sys, threading
from pathlib import Path
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_request import Slice
from edge_agent.inference.shared_memory import Region, RegionStatus

folder, size = Path(sys.argv[1]), 600_000
path = folder / "file"
path.write_bytes(bytes(size))
status = RegionStatus(name="r", key="file", offset=100, byte_size=size - 100)
whole = Slice(region="r", offset=0, byte_size=size - 100)
ended = threading.Event()

def cut():
    pid = os.fork()
    if pid == 0:
        for _ in range(3000):
            os.truncate(path, 4096)
            os.truncate(path, size)
        os._exit(0)
    os.waitpid(pid, 0)
    ended.set()

threading.Thread(target=cut).start()
outcomes = {"copied": 0, "refused": 0}
while not ended.is_set():
    try:
        region = Region(status, folder=folder)
        while not ended.is_set():
            region.read(whole)
            region.write(whole, bytes(size - 100))
            outcomes["copied"] += 1
    except RequestError:
        outcomes["refused"] += 1
print(outcomes["refused"] > 0)
"""


def test_a_file_that_shrinks_during_the_copy_does_not_end_the_process(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


BLIND_COPY = """
import os, sys
from edge_agent.inference.fault_guard import GuardedMapping, MappingLostError

descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 100_000)
mapping = GuardedMapping(descriptor, offset=10, length=90_000)
mapping.write(0, b"x" * 90_000)
assert mapping.read(5, 3) == b"xxx"
os.ftruncate(descriptor, 4096)
for attempt in (lambda: mapping.read(0, 90_000), lambda: mapping.write(80_000, b"y")):
    try:
        attempt()
    except MappingLostError:
        print("lost")
if len(sys.argv) > 2:
    import mmap
    os.ftruncate(descriptor, 8192)
    foreign = mmap.mmap(descriptor, 8192)
    os.ftruncate(descriptor, 0)
    foreign[0]
"""


@pytest.mark.parametrize(("extra", "status_code"), [([], 0), (["foreign"], -7)])
def test_only_the_guarded_copy_survives(tmp_path: Path, extra: list[str], status_code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-u", "-c", BLIND_COPY, str(tmp_path / "file"), *extra],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (status_code, "lost\nlost\n", "")


@pytest.fixture
def regions(tmp_path: Path) -> Regions:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    return Regions(max_bytes=150, max_request_bytes=120, folder=tmp_path)


def request(*inputs: Tensor, **places: Slice) -> InferenceRequest:
    return InferenceRequest(
        id="1",
        inputs=list(inputs),
        outputs=None,
        binary_output=False,
        shared_inputs=places,
        shared_bytes=sum(one.byte_size for one in places.values()),
    )


def tensor(name: str, size: int, data: bytes = b"", datatype: Datatype = Datatype.UINT8) -> Tensor:
    return Tensor(name=name, datatype=datatype, shape=[size], data=data)


def test_inputs_are_filled_and_others_left_alone(regions: Regions) -> None:
    regions.register(status(50, offset=10))
    asked = request(tensor("a", 3), tensor("b", 2, b"zz"), a=place(3, 1))
    filled = regions.filled(asked)
    assert [one.data for one in filled.inputs] == [b"\x0b\x0c\x0d", b"zz"]
    assert (filled.id, filled.shared_inputs) == ("1", asked.shared_inputs)


def test_data_in_a_region_are_checked_like_others(regions: Regions) -> None:
    regions.register(status(50))
    for datatype, complaint in [
        (Datatype.BOOL, "other than 0 and 1"),
        (Datatype.BYTES, "no BYTES"),
    ]:
        with pytest.raises(RequestError, match=complaint):
            regions.filled(request(tensor("a", 5, datatype=datatype), a=place(5)))


def test_what_is_too_much_is_refused(regions: Regions) -> None:
    regions.register(status(100))
    with pytest.raises(RequestError, match="has 51 bytes, 50 of 150 are free"):
        regions.register(status(51, name="more"))
    with pytest.raises(ConflictError, match="registered already"):
        regions.register(status(1))
    with pytest.raises(RequestError, match="have 121 bytes, at most 120 are read"):
        regions.filled(request(tensor("a", 100), tensor("b", 21), a=place(100), b=place(21)))
    regions.unregister("r")
    regions.register(status(100, name="more"))
    with pytest.raises(UnknownModelError, match="'r' is registered"):
        regions.status("r")


def test_a_region_in_use_outlives_its_registration(regions: Regions) -> None:
    regions.register(status(100))
    region = regions._region("r")
    descriptor = region._descriptor
    regions.unregister()
    assert regions.status() == []
    assert region.read(place(2)) == b"\0\1"
    del region
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_threads_copy_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    region = Region(status(100_000), folder=tmp_path)
    wrong: list[int] = []

    def work(number: int) -> None:
        mine = place(1000, 1000 * number)
        for _ in range(300):
            region.write(mine, bytes([number]) * 1000)
            if region.read(mine) != bytes([number]) * 1000:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

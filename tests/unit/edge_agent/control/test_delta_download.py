"""Deltas on the device: fewer bytes when they are good, the whole file when anything is wrong."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.control.delta_reading import rebuilt
from edge_agent.control.download import BlobStore, Course
from edge_agent.control.pace import Pace
from edge_agent.control.server_client import TARGETS_ROUTE, ServerUnreachableError
from fleet_protocol.delta import PACKED, SEGMENT_HEADER, STORED, DeltaError, header
from fleet_protocol.messages import EventKind
from fleet_protocol.update_states import UpdateState
from fleet_server.deltas.encoding import encode
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_clock import ManualClock
from tests.simulators.device_releases import release
from tests.simulators.device_repository import SimulatedRepository

PATH = "models/animals/2.0.0/model.onnx"
RANDOM = random.Random(3)  # noqa: S311 (weights)
BASE = RANDOM.randbytes(100_000)
NEW = bytes((byte + (RANDOM.random() < 0.2)) % 256 for byte in BASE)
DELTA = b"".join(encode(BASE, NEW))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Device:
    """A folder of blobs that holds the base, and what it was told of refused deltas."""

    folder: Path
    repository: SimulatedRepository
    refused: list[str] = field(default_factory=list)
    cancelled: bool = False

    def fetch(self) -> Path:
        blobs = BlobStore(
            folder=self.folder, server=self.repository, pace=Pace(clock=ManualClock())
        )
        course = Course(
            cancelled=lambda: self.cancelled, base=sha256(BASE), refused=self.refused.append
        )
        return blobs.fetch(PATH, length=len(NEW), sha256=sha256(NEW), course=course)

    @property
    def asked_for_the_whole(self) -> list[str | None]:
        return [wanted for path, wanted in self.repository.requests if TARGETS_ROUTE in path]


@pytest.fixture
def held(tmp_path: Path) -> Device:
    repository = SimulatedRepository()
    repository.put_target(PATH, NEW)
    (tmp_path / sha256(BASE)).write_bytes(BASE)
    return Device(tmp_path, repository)


def test_a_delta_is_all_that_comes(held: Device) -> None:
    held.repository.put_delta(BASE, PATH, NEW)
    assert held.fetch().read_bytes() == NEW
    assert held.asked_for_the_whole == []
    assert held.refused == []


@pytest.mark.parametrize("status", [202, 404, 500])
def test_without_a_delta_the_whole_file_comes(held: Device, status: int) -> None:
    held.repository.put_delta(BASE, PATH, NEW)
    held.repository.faults.refuse["deltas"] = status
    assert held.fetch().read_bytes() == NEW
    assert held.refused == []


def of(mode: int, length: int, payload: bytes) -> bytes:
    return SEGMENT_HEADER.pack(mode, length, 0, len(payload)) + payload


START = header(sha256(BASE), sha256(NEW))
WRONG = {
    "nothing": b"",
    "no delta": b"<html>",
    "of another base": b"".join(encode(NEW, NEW)),
    "cut off": DELTA[:-1],
    "a flipped byte": DELTA[:5000] + bytes([DELTA[5000] ^ 1]) + DELTA[5001:],
    "another file": START + b"".join(of(STORED, 50_000, BASE[:50_000]) for _ in range(2)),
    "a bomb": START + of(PACKED, 65_536, b"\x01" * 500),
    "in crumbs": START + b"".join(of(STORED, 1, b"x") for _ in range(len(NEW))),
    "oversized": START + b"".join(of(STORED, 5_000, BASE[:5_000]) for _ in range(20)),
    "endless": START + b"".join(of(STORED, 50_000, BASE[:50_000]) for _ in range(5)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_delta_is_refused_and_the_whole_file_comes(held: Device, wrong: bytes) -> None:
    held.repository.put_delta(BASE, PATH, NEW, wrong)
    assert held.fetch().read_bytes() == NEW
    assert len(held.refused) == 1
    assert PATH in held.refused[0]
    assert {path.name for path in held.folder.iterdir()} == {sha256(BASE), sha256(NEW)}


def test_a_delta_is_broken_off_when_it_gets_larger_than_the_file(held: Device) -> None:
    read = []

    def endless() -> Iterator[bytes]:
        yield START
        while True:
            read.append(1)
            yield of(STORED, 5_000, BASE[:5_000])

    pieces = rebuilt(
        endless(), base=held.folder / sha256(BASE), sha256=sha256(NEW), length=len(NEW)
    )
    with pytest.raises(DeltaError, match="larger than the 100000 bytes"):
        list(pieces)
    assert len(read) == 20


def test_a_base_that_has_rotted_costs_a_download(held: Device) -> None:
    held.repository.put_delta(BASE, PATH, NEW)
    (held.folder / sha256(BASE)).write_bytes(b"\1" + BASE[1:])
    assert held.fetch().read_bytes() == NEW
    assert held.refused == [f"the delta for {PATH} does not give the signed file"]


def test_a_base_that_is_gone_is_not_asked_about(held: Device) -> None:
    (held.folder / sha256(BASE)).unlink()
    assert held.fetch().read_bytes() == NEW
    assert all("deltas" not in path for path, _ in held.repository.requests)


def test_a_delta_that_broke_off_leaves_a_beginning_that_is_kept(held: Device) -> None:
    held.repository.put_delta(BASE, PATH, NEW)
    held.repository.faults.break_after = len(DELTA) // 4096 * 4096
    with pytest.raises(ServerUnreachableError):
        held.fetch()
    assert held.asked_for_the_whole == ["bytes=65536-"]
    held.repository.faults.break_after = None
    assert held.fetch().read_bytes() == NEW
    assert "bytes=0-" not in held.asked_for_the_whole


def test_what_is_no_delta_at_all_costs_nothing_that_is_there(held: Device) -> None:
    held.repository.put_delta(BASE, PATH, NEW, b"<html>")
    (held.folder / f"{sha256(NEW)}.part").write_bytes(NEW[:40_000])
    assert held.fetch().read_bytes() == NEW
    assert held.asked_for_the_whole == ["bytes=40000-"]


@pytest.mark.parametrize("size", [1, 49_999, 50_000, 65_536, len(NEW) - 1, len(NEW)])
@pytest.mark.parametrize("content", [NEW, BASE], ids=["of a good delta", "of a wrong one"])
def test_killed_while_it_rebuilds_it_ends_with_the_signed_file(
    held: Device, content: bytes, size: int
) -> None:
    """Nothing but the beginning of the file is left of it, however far it had come."""
    held.repository.put_delta(BASE, PATH, NEW)
    (held.folder / f"{sha256(NEW)}.part").write_bytes(content[:size])
    assert held.fetch().read_bytes() == NEW


def test_with_half_of_the_file_there_the_rest_is_fetched_as_it_is(held: Device) -> None:
    held.repository.put_delta(BASE, PATH, NEW)
    (held.folder / f"{sha256(NEW)}.part").write_bytes(NEW[:60_000])
    assert held.fetch().read_bytes() == NEW
    assert held.asked_for_the_whole == ["bytes=60000-"]


async def test_a_device_updates_by_delta_and_tells_of_a_wrong_one(device: ControlDevice) -> None:
    one, two = release("1.0.0", model=BASE), release("2.0.0", model=NEW)
    three = release("3.0.0", model=BASE[::-1])
    device.repository.add(one, two, three)
    good = device.repository.put_delta(BASE, two.model_path, NEW)
    device.repository.put_delta(NEW, three.model_path, three.model, DELTA)
    for number, wanted in enumerate((one, two), 1):
        await device.receive(device.director.assign(DEVICE, number, [wanted]))
        await device.settle()
    assert device.active() == {"animals": "2.0.0"}
    asked = [path for path, _ in device.repository.requests]
    assert good in asked
    assert not any(TARGETS_ROUTE in path and sha256(NEW) in path for path in asked)
    await device.receive(device.director.assign(DEVICE, 3, [three]))
    await device.settle()
    assert device.record().state is UpdateState.COMMITTED
    (told,) = device.events(EventKind.DELIVERY_REFUSED)
    assert "is not one between these two files" in told.detail

"""What is left of old releases and of downloads goes, if not at once then later and by itself."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fleet_protocol.update_states import UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import Release, release

OLD, NEW = release("1.0.0"), release("1.1.0")


def blobs_of(made: Release) -> set[str]:
    return {hashlib.sha256(content).hexdigest() for content in (made.manifest_bytes, made.model)}


def held(device: ControlDevice) -> set[str]:
    return {path.name for path in device.state.blobs.iterdir()}


@pytest.fixture
async def updating(device: ControlDevice) -> ControlDevice:
    """A device that has committed to the old release and is assigned the new one."""
    device.repository.add(OLD, NEW)
    await device.receive(device.director.assign(DEVICE, 1, [OLD]))
    await device.settle()
    await device.receive(device.director.assign(DEVICE, 2, [NEW]))
    return device


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT], ids=["refuses", "denies"])
@pytest.mark.parametrize("call", ["unlink", "listdir"])
async def test_what_the_disk_refuses_to_remove_goes_when_it_no_longer_does(
    updating: ControlDevice, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    first, other = sorted(blobs_of(OLD))
    attempts: list[object] = []
    does: Callable[..., object] = getattr(os, call)

    def refusing(path: Path, **more: object) -> object:
        if Path(path) in {updating.state.blobs / first, updating.state.blobs}:
            attempts.append(path)
            raise OSError(number, os.strerror(number))
        return does(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing)
        await updating.settle()
        for _ in range(50):  # they do not take a second, within which it may try but once
            await updating.step()
    assert updating.active() == {"animals": "1.1.0"}
    assert held(updating) == blobs_of(NEW) | ({first} if call == "unlink" else {first, other})
    assert 0 < len(attempts) < 12
    updating.clock.advance(1.0)
    await updating.step()
    assert held(updating) == blobs_of(NEW)


async def test_a_withdrawn_download_that_writes_on_leaves_nothing(
    updating: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()
    serve = updating.repository.open

    @contextlib.contextmanager
    def stalled(path: str, headers: Mapping[str, str], *, slowly: bool = False) -> Iterator[object]:
        if NEW.model_path.rpartition("/")[0] in path and path.endswith(".onnx"):
            asked.set()
            answer.wait(timeout=30)
        with serve(path, headers, slowly=slowly) as body:
            yield body

    monkeypatch.setattr(updating.repository, "open", stalled)
    while not asked.is_set():
        await updating.parts.updater.round()
    await updating.receive(updating.director.assign(DEVICE, 3, [OLD]))
    for _ in range(5):
        await updating.parts.updater.round()
    assert updating.record().state is UpdateState.FAILED
    answer.set()
    await updating.settle()
    assert held(updating) == blobs_of(OLD)

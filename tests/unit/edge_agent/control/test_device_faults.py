"""What the device fails at in a trial is not held against the release, however often it happens."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from edge_agent.counters import CountersError
from fleet_protocol.update_states import UpdateState
from tests.simulators.bad_sectors import unreadable
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release

FIRST, SECOND = release("1.0.0"), release("1.1.0", memory_bytes=1 << 20)
MODEL = hashlib.sha256(SECOND.model).hexdigest()
MANIFEST = hashlib.sha256(SECOND.manifest_bytes).hexdigest()
_HOUR_S = 3600
_LONGEST_S = 300.0


@contextmanager
def runtime_fails(device: ControlDevice) -> Iterator[None]:
    device.runtime.fault = "this device failed: Cannot allocate memory"
    yield
    device.runtime.fault = ""


@contextmanager
def no_memory(device: ControlDevice) -> Iterator[None]:
    trial = device.parts.updater._trial_step._trial
    available, trial._available_memory = trial._available_memory, lambda: 1000
    yield
    trial._available_memory = available


@contextmanager
def runs_folder_unreadable(device: ControlDevice) -> Iterator[None]:
    real = Path.iterdir

    def refused(path: Path) -> Iterator[Path]:
        if path == device.state.run:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    with mock.patch.object(Path, "iterdir", refused):
        yield


@contextmanager
def manifest_unreadable(device: ControlDevice) -> Iterator[None]:
    device.repository.faults.unreachable = True  # or it would be fetched anew at once
    with unreadable(device.state.blob(MANIFEST)):
        yield
    device.repository.faults.unreachable = False


@contextmanager
def model_rots(device: ControlDevice) -> Iterator[None]:
    device.repository.faults.unreachable = True
    device.state.blob(MODEL).write_bytes(b"rotten")
    device.runtime.unloadable = {"1.1.0"}
    yield
    device.runtime.unloadable = set()
    device.repository.faults.unreachable = False


@contextmanager
def model_vanishes(device: ControlDevice) -> Iterator[None]:
    device.repository.faults.unreachable = True
    device.state.blob(MODEL).unlink()
    yield
    device.repository.faults.unreachable = False


async def second_is_assigned(device: ControlDevice) -> None:
    """Let the first release serve, and the second be asked for."""
    device.repository.add(FIRST, SECOND)
    await device.receive(device.director.assign(DEVICE, 1, [FIRST]))
    await device.settle()
    await device.receive(device.director.assign(DEVICE, 2, [SECOND]))


Fault = Callable[[ControlDevice], AbstractContextManager[None]]
FAULTS: dict[str, tuple[Fault, str]] = {
    "the runtime lacks memory": (runtime_fails, "Cannot allocate memory"),
    "memory does not reach": (no_memory, "takes 1048576 bytes of memory, 1000 are available"),
    "counters cannot be looked for": (runs_folder_unreadable, "no counter file"),
    "the manifest is unreadable": (manifest_unreadable, "cannot be read (Input/output error)"),
    "the model has rotted": (model_rots, "on this device is not what was verified"),
    "the model is gone": (model_vanishes, "on this device is gone"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_it_is_told_and_tried_again_until_it_passes(device: ControlDevice, name: str) -> None:
    fault, sentence = FAULTS[name]
    device.retry_max_s = _LONGEST_S
    await device.restarted()
    await second_is_assigned(device)
    await device.until(UpdateState.VERIFIED)
    told, looks = set[str](), 0
    with fault(device):
        before = len(device.events())
        for _ in range(_HOUR_S // 10):
            looks += await device.step()
            told.add(device.record().detail)
            assert not device.record().settled
            assert device.record().attempts <= 1
            assert device.runtime.serving("animals") == "1.0.0"
            device.clock.advance(10)
        assert looks < 60, "it loops"
        assert len(device.events()) - before < 60
    told |= {event.detail for event in device.events()}
    assert any(sentence in detail for detail in told), told
    device.clock.advance(_LONGEST_S)
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
    assert device.record().attempts == 1


async def test_a_file_that_was_exchanged_since_it_was_verified_is_not_loaded(
    device: ControlDevice,
) -> None:
    """Even if it would answer rightly; between download and trial there may be days."""
    await second_is_assigned(device)
    await device.until(UpdateState.VERIFIED)
    loads = device.runtime.calls.count("load")
    device.state.blob(MODEL).write_bytes(b"evil")
    await device.until(UpdateState.DOWNLOADING)
    assert "is not what was verified; it is fetched anew" in device.events()[-1].detail
    assert device.runtime.calls.count("load") == loads
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
    assert device.state.blob(MODEL).read_bytes() == SECOND.model


async def test_a_disk_that_ruins_every_copy_is_given_time(device: ControlDevice) -> None:
    """Each copy arrives well and is something else when it is read again."""
    device.retry_max_s = _LONGEST_S
    await device.restarted()
    await second_is_assigned(device)
    before = len(device.events())
    for _ in range(_HOUR_S // 10):
        if device.record().state is UpdateState.VERIFIED:
            device.state.blob(MODEL).write_bytes(b"ruined")
        await device.step()
        assert not device.record().settled
        device.clock.advance(10)
    assert 6 < len(device.events()) - before < 120, "it loops"
    assert device.runtime.serving("animals") == "1.0.0"


async def test_what_is_committed_is_served_again_while_a_trial_waits(device: ControlDevice) -> None:
    await second_is_assigned(device)
    await device.until(UpdateState.VERIFIED)
    with no_memory(device):
        await device.step()
        assert device.record().state is UpdateState.TRIAL
        device.runtime.stop_family("animals")
        await device.step()
        assert device.runtime.serving("animals") == "1.0.0"


def test_a_folder_that_cannot_be_read_is_an_error_of_ours(device: ControlDevice) -> None:
    files = device.parts._counters
    with runs_folder_unreadable(device):
        assert files.counts() == []
        with pytest.raises(CountersError, match=r"cannot look for counter files in .*: Input/outp"):
            files.read()

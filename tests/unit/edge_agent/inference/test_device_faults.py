"""What a failed load says of the device and what of the model."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.inference.device_faults import blaming_rightly, said_of_the_device
from edge_agent.inference.errors import BackendError, DeviceFaultError, LoadError
from tests.simulators.bad_sectors import unreadable

BROKEN = LoadError("Protobuf parsing failed.")


def caused_by(cause: Exception) -> LoadError:
    error = LoadError("ONNX Runtime cannot load it")
    error.__cause__ = cause
    return error


SENTENCES: list[tuple[BaseException, str]] = [
    (BROKEN, ""),
    (LoadError("the model's inputs are ['x'], the release declares ['y']"), ""),
    (LoadError("Load model from x failed:system error number 12"), "Cannot allocate memory"),
    (LoadError("Load model from x failed:system error number 5"), "Input/output error"),
    (caused_by(OSError(errno.ENOSPC, "No space left on device")), "No space left on device"),
    (caused_by(MemoryError("std::bad_alloc")), "not enough memory (std::bad_alloc)"),
    (caused_by(BackendError("Failed to allocate memory for 12 bytes")), "Failed to allocate"),
]


@pytest.mark.parametrize(("error", "said"), SENTENCES, ids=lambda one: str(one)[:40])
def test_what_an_error_says_of_the_device(error: BaseException, said: str) -> None:
    assert said_of_the_device(error) == said


def failing(*errors: Exception | None) -> tuple[Callable[[Path], str], list[Path]]:
    """Return a load that ends in these ways, one after the other, and what was loaded."""
    ends, loaded = list(errors), list[Path]()

    def load(path: Path) -> str:
        loaded.append(path)
        error = ends.pop(0)
        if error is not None:
            raise error
        return "a model"

    return load, loaded


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(b"a model" * 1000)
    return path


def test_a_file_that_cannot_be_read_is_the_devices(file: Path) -> None:
    load, loaded = failing(BROKEN)
    with unreadable(file), pytest.raises(DeviceFaultError, match=r"blob.*: Input/output error"):
        blaming_rightly(load, file, again=True)
    assert len(loaded) == 1


def test_what_has_passed_is_no_verdict(file: Path) -> None:
    load, loaded = failing(BROKEN, None)
    assert blaming_rightly(load, file, again=True) == "a model"
    assert len(loaded) == 2


@pytest.mark.parametrize("loads", [1, 2])
def test_a_file_that_can_be_read_is_to_blame(file: Path, loads: int) -> None:
    load, loaded = failing(BROKEN, BROKEN)
    with pytest.raises(LoadError, match="Protobuf") as refused:
        blaming_rightly(load, file, again=loads == 2)
    assert type(refused.value) is LoadError
    assert len(loaded) == loads


@pytest.mark.parametrize("second", [MemoryError(), OSError(errno.EIO, "Input/output error")])
def test_the_second_failure_is_looked_at_too(file: Path, second: Exception) -> None:
    load, _ = failing(BROKEN, second)
    with pytest.raises(DeviceFaultError):
        blaming_rightly(load, file, again=True)

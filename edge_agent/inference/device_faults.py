"""Whose fault a failed load is: the model's, or that of a disk or a memory that gave way.

A verdict on a release is final, so it must not rest on a bad sector. The libraries tell of one in
their own ways: as an `OSError` or a `MemoryError`, in words, or not at all. ONNX Runtime takes a
file that it could not read to its end for a broken model.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from edge_agent.inference.errors import DeviceFaultError, LoadError

_Loaded = TypeVar("_Loaded")

_PIECE_BYTES = 1024 * 1024
_NUMBER = re.compile(r"system error number (\d+)")
_WORDS = re.compile(
    r"bad_alloc|bad allocation|failed to allocate|cannot allocate memory|out of memory"
    r"|no space left on device|input/output error|too many open files",
    re.IGNORECASE,
)


def blaming_rightly(load: Callable[[Path], _Loaded], path: Path, *, again: bool) -> _Loaded:
    """Load a file; what fails because of the device is told from what fails because of the file.

    Where the error does not say, the file is read through. If that goes well, the load is tried
    once more, since the first one may have met what has passed; only what fails on a file that
    can be read is the file's.

    Args:
        load: loads the file.
        path: the file.
        again: whether to try a second time.

    Raises:
        DeviceFaultError: the disk or the memory of the device failed.
        LoadError: the model cannot be loaded, whoever tries.
    """
    try:
        return load(path)
    except (LoadError, OSError, MemoryError) as error:
        _raise_if_the_device_failed(error, path)
        if not again:
            raise
    try:
        return load(path)
    except (LoadError, OSError, MemoryError) as error:
        _raise_if_the_device_failed(error, path)
        raise


def _raise_if_the_device_failed(error: Exception, path: Path) -> None:
    found = said_of_the_device(error) or _problem_of(path)
    if found:
        raise DeviceFaultError(
            f"this device failed while it loaded {path.name[:12]}...: {found}"
        ) from error


def said_of_the_device(error: BaseException) -> str:
    """Return what an error says of the device, empty if it speaks of something else."""
    for one in _chain(error):
        if isinstance(one, MemoryError):
            return f"not enough memory ({one or 'MemoryError'})"
        if isinstance(one, OSError):
            return one.strerror or str(one)
        text = str(one)
        if number := _NUMBER.search(text):
            return os.strerror(int(number[1]))
        if words := _WORDS.search(text):
            return words[0]
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _problem_of(path: Path) -> str:
    """Return why a file cannot be read from its beginning to its end, empty if it can."""
    try:
        with path.open("rb") as file:
            while file.read(_PIECE_BYTES):
                pass
    except OSError as error:
        return error.strerror or str(error)
    return ""

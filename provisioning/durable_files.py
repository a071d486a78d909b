"""Directories and files that are whole on the disk or not there at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioning.errors import ProvisioningError

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
_DIRECTORY_MODE = 0o700


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may enter."""
    path.mkdir(mode=_DIRECTORY_MODE)


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that does not exist yet and push it to the disk, never wider than ``mode``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes, *, mode: int) -> None:
    """Put a whole file in the place of ``path``: a reader sees the old state or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_new(partial, content, mode=mode)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Push a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Yield an empty directory beside ``out`` that takes its place when the block succeeds.

    Whoever dies in the block leaves ``out`` untouched and the directory beside it, which the next
    attempt empties; a lock on it, gone with its process, keeps two attempts apart.

    Raises:
        ProvisioningError: ``out`` exists and is not an empty directory, or is being made now.
        OSError: the file system refuses.
    """
    _check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _lock(descriptor, out)
        _check_free(out)
        _clear(partial)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        os.fsync(descriptor)
        partial.rename(out)
        sync_directory(out.parent)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ProvisioningError(f"{out} is being made by another process right now") from None


def _check_free(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ProvisioningError(f"{out} exists and is not a directory: choose another place")
    if out.exists() and any(out.iterdir()):
        raise ProvisioningError(
            f"{out} exists and is not empty: an authority is never overwritten, its keys could "
            "not be made again; choose another directory or move this one away"
        )


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()

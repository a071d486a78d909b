"""Writes that survive a power cut: temporary file, fsync, rename, fsync of the folder."""

import contextlib
import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes) -> None:
    """Replace a file as a whole.

    Raises:
        OSError: the disk refuses; the old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """Write a secret that nobody but its owner may ever read, in the place of what was there.

    Raises:
        OSError: the disk refuses; the old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    write(path, content)


def move(source: Path, target: Path) -> None:
    """Move a finished and synced file on the same file system into its place.

    Raises:
        OSError: the disk refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    sync_folder(target.parent)
    sync_folder(target.parent.parent)

"""The files of releases on disk, and where uploads of them are put together.

An upload's folder is locked while its process lives, so that another one that starts on the same
repository does not take it for a leftover.
"""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from fleet_protocol import names
from fleet_server.errors import StorageFullError
from fleet_server.releases.verification import StoredFile

_FREE_BYTES_KEPT = 64 * 1024 * 1024


class TargetFiles:
    """The folders ``targets/`` and ``staging/`` of a repository."""

    def __init__(self, root: Path) -> None:
        """Take the repository's folder."""
        self.targets = root / "targets"
        self.staging = root / "staging"
        self._locks: dict[Path, int] = {}

    def location(self, path: str, file: StoredFile) -> Path:
        """Return where a target lies (consistent snapshots: its name starts with its hash)."""
        family, version, name = names.parse_target_path(path)
        return self.targets / "models" / family / version / f"{file.sha256}.{name}"

    def has(self, path: str, file: StoredFile) -> bool:
        """Say whether a target is stored, with its content verified when it came."""
        try:
            return self.location(path, file).stat().st_size == file.length
        except OSError:
            return False

    def staging_folder(self, name: str, *, size_bytes: int) -> Path:
        """Make a folder for an upload, on the same file system as the targets.

        Raises:
            StorageFullError: the disk has no room for that many bytes.
        """
        free = shutil.disk_usage(self.staging).free
        if free < size_bytes + _FREE_BYTES_KEPT:
            raise StorageFullError(
                f"the upload needs {size_bytes} bytes and the server has {free} free; "
                "nothing was kept"
            )
        folder = self.staging / names.file_name(name)
        folder.mkdir()
        self._locks[folder] = _locked(folder)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove an upload's folder with what is left in it."""
        shutil.rmtree(folder, ignore_errors=True)
        os.close(self._locks.pop(folder))

    def sweep(self) -> None:
        """Remove the folders of uploads whose process died.

        Raises:
            OSError: the disk refuses.
        """
        self.staging.mkdir(mode=0o700, exist_ok=True)
        for folder in self.staging.iterdir():
            with contextlib.suppress(BlockingIOError):
                lock = _locked(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: Path) -> int:
    """Lock a folder; return the descriptor that holds the lock.

    Raises:
        BlockingIOError: another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor

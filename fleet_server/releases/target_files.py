"""The files of releases on disk, and where uploads of them are put together."""

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
        return folder

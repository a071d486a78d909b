"""Whether the files of the committed releases still are what was verified.

That a file is gone is seen at every look. That its bytes have rotted takes reading it, so that is
done once for each life of the runtime, when there is nothing else to do, and when the runtime
refuses a release. What was found holds for that very file: one that is fetched anew is another.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_agent.runtime_api import ActiveRelease

logger = logging.getLogger(__name__)

_Identity = tuple[int, int, int]


class BlobAudit:
    """Remembers which files are damaged; its methods block their thread."""

    def __init__(self, *, blob: Callable[[str], Path]) -> None:
        """Take where the file of a hash lies."""
        self._blob = blob
        self._rotten: dict[str, _Identity] = {}
        self._epoch = ""
        self._examined: set[str] = set()

    def damaged(self, releases: Iterable[ActiveRelease]) -> frozenset[str]:
        """Return the families whose file is gone or was found rotten; reads no file."""
        return frozenset(release.family for release in releases if self._is_damaged(release.sha256))

    def examine(self, release: ActiveRelease) -> None:
        """Read a release's file and remember whether it is whole."""
        path = self._blob(release.sha256)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:  # a disk that cannot be read now may be read later
            logger.warning("blob_unreadable", extra={"file": path.name, "reason": str(error)})
            return
        found = _identity(path)
        if digest != release.sha256 and found is not None:
            self._rotten[release.sha256] = found
            logger.error(
                "blob_damaged", extra={"family": release.family, "version": release.version}
            )

    def examine_next(self, releases: Iterable[ActiveRelease], *, epoch: str) -> None:
        """Examine one file that was not examined in this life of the runtime, if there is one."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._examined.clear()
        for release in releases:
            if release.sha256 not in self._examined:
                self._examined.add(release.sha256)
                self.examine(release)
                return

    def _is_damaged(self, sha256: str) -> bool:
        found = _identity(self._blob(sha256))
        return found is None or self._rotten.get(sha256) == found


def _identity(path: Path) -> _Identity | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return (0, 0, 0)
    return status.st_ino, status.st_size, status.st_mtime_ns

"""Whether the files of the committed releases still are what was verified.

That a file is gone is seen at every look. That its bytes have rotted, or that the disk no longer
reads them, takes reading it, so that is done once for each life of the runtime, when there is
nothing else to do, and when the runtime refuses a release. What was found holds for that very file:
one that is fetched anew is another.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.runtime_api import ActiveRelease

logger = logging.getLogger(__name__)

_Identity = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the file of a committed release.

    Attributes:
        release: whose file it is.
        reason: what the file is or does, for a sentence that has named it.
        lost: nothing is to be had from it; otherwise the disk may read it another time.
        in_vain: why the last attempt to fetch it anew came to nothing.
    """

    release: ActiveRelease
    reason: str
    lost: bool
    in_vain: str = ""

    def __str__(self) -> str:
        """Return what the operator is told."""
        tried = f", in vain so far: {self.in_vain}" if self.in_vain else ""
        return (
            f"the file of {self.release.family} {self.release.version} {self.reason}; "
            f"it is fetched anew{tried}"
        )


@dataclass(frozen=True, slots=True)
class FileDamage:
    """What is wrong with a verified file; see `Damage`."""

    reason: str
    lost: bool


def damage_of(path: Path, sha256: str) -> FileDamage | None:
    """Read a file that was verified once and return what is wrong with it now."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return FileDamage("is not what was verified", lost=True)
    except FileNotFoundError:
        return FileDamage("is gone", lost=True)
    except OSError as error:  # a disk that cannot read it now may read it later, or never
        return FileDamage(f"cannot be read ({error.strerror or error})", lost=False)
    return None


class BlobAudit:
    """Remembers which files are damaged; its methods block their thread."""

    def __init__(self, *, blob: Callable[[str], Path]) -> None:
        """Take where the file of a hash lies."""
        self._blob = blob
        self._found: dict[str, tuple[_Identity, Damage]] = {}
        self._in_vain: dict[str, str] = {}
        self._epoch = ""
        self._examined: set[str] = set()

    def damaged(self, releases: Iterable[ActiveRelease]) -> dict[str, Damage]:
        """Return by family what is wrong with its file; reads no file."""
        found = {release.family: self._damage(release) for release in releases}
        return {
            family: replace(damage, in_vain=self._in_vain.get(damage.release.sha256, ""))
            for family, damage in found.items()
            if damage is not None
        }

    def examine(self, release: ActiveRelease) -> None:
        """Read a release's file and remember whether it is whole."""
        path = self._blob(release.sha256)
        state = damage_of(path, release.sha256)
        found = _identity(path)
        if state is None or found is None:
            self._found.pop(release.sha256, None)
            return
        damage = Damage(release, state.reason, lost=state.lost)
        self._found[release.sha256] = found, damage
        logger.error("blob_damaged", extra={"file": path.name, "reason": str(damage)})

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

    def not_repaired(self, sha256: str, why: str) -> None:
        """Take note that a file could not be fetched anew."""
        self._in_vain[sha256] = why

    def repaired(self, sha256: str) -> None:
        """Take note that a file was fetched anew, or read from its beginning to its end."""
        self._found.pop(sha256, None)
        self._in_vain.pop(sha256, None)

    def _damage(self, release: ActiveRelease) -> Damage | None:
        identity = _identity(self._blob(release.sha256))
        if identity is None:
            return Damage(release, "is gone", lost=True)
        seen, damage = self._found.get(release.sha256, (None, None))
        return damage if seen == identity else None


def _identity(path: Path) -> _Identity | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return (0, 0, 0)
    return status.st_ino, status.st_size, status.st_mtime_ns

"""A file on its way: ``<sha256>.part``, and the hash of what is there of it."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from edge_agent import store
from edge_agent.errors import AgentError

logger = logging.getLogger(__name__)

_HASH_BYTES = 1024 * 1024


class DownloadError(AgentError):
    """What the server sent is not the signed file."""


class CancelledDownloadError(AgentError):
    """The caller no longer wants the file; what arrived is kept for later."""


class PartialFile:
    """A file on its way: what is there of it, and the hash of that."""

    def __init__(self, path: Path, length: int, cancelled: Callable[[], bool]) -> None:
        """Hash what is there; more than the signed length, or what cannot be read, is thrown away.

        Raises:
            CancelledDownloadError: the caller said so.
            StoreError: the disk refused.
        """
        self.path = path
        self.length = length
        self.cancelled = cancelled
        try:
            self._digest, self.have = digest_of(path, cancelled)
        except OSError as error:  # a bad sector would be met at every attempt
            logger.warning("part_unreadable", extra={"file": path.name, "reason": str(error)})
            self.restart()
        if self.have > length:
            self.restart()

    def restart(self) -> None:
        """Throw away what is there.

        Raises:
            StoreError: the disk refused.
        """
        store.remove_file(self.path)
        self._digest, self.have = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """Return the SHA-256 of what is there."""
        return self._digest.hexdigest()

    def append(self, chunks: Iterator[bytes], *, ranged: bool) -> None:
        """Add what arrives; if it is the whole file again, pass over what is there.

        Raises:
            DownloadError: it is more than the signed length; nothing of it is kept.
            CancelledDownloadError: the caller said so; what arrived is kept.
        """
        skip = 0 if ranged else self.have
        with self.path.open("ab") as file:
            for chunk in chunks:
                check_cancelled(self.cancelled)
                fresh = chunk[skip:]
                skip -= len(chunk) - len(fresh)
                if self.have + len(fresh) > self.length:
                    break
                file.write(fresh)
                self._digest.update(fresh)
                self.have += len(fresh)
            else:
                return
        store.remove_file(self.path)
        raise DownloadError(f"{self.path.stem[:12]}... is longer than its signed {self.length}")


def digest_of(path: Path, cancelled: Callable[[], bool]) -> "tuple[hashlib._Hash, int]":
    """Hash a file, none of which is as good as an empty one; return its length, too.

    Raises:
        CancelledDownloadError: the caller said so.
    """
    digest = hashlib.sha256()
    have = 0
    with suppress(FileNotFoundError), path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            check_cancelled(cancelled)
            digest.update(piece)
            have += len(piece)
    return digest, have


def check_cancelled(cancelled: Callable[[], bool]) -> None:
    """Go on unless the caller no longer wants the file.

    Raises:
        CancelledDownloadError: so it is.
    """
    if cancelled():
        raise CancelledDownloadError("the download is no longer wanted")

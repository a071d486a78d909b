"""Downloads of signed files into ``blobs/``: resumed, bounded, verified before they get their name.

A file arrives as ``<sha256>.part``. What is there of an earlier attempt is hashed again and the
rest is asked for by ``Range``; only a file of the signed length and SHA-256 is renamed, so a name
without ``.part`` is a verified file. Nothing is held in memory but one piece.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from edge_agent import store
from edge_agent.control.pace import Pace
from edge_agent.control.server_client import (
    TARGETS_ROUTE,
    ReleaseServer,
    ServerRefusedError,
    ServerUnreachableError,
)
from edge_agent.errors import AgentError
from edge_agent.store import DiskFullError

_HASH_BYTES = 1024 * 1024
_RESERVE_BYTES = 16 * 1024 * 1024
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


class DownloadError(AgentError):
    """What the server sent is not the signed file."""


class CancelledDownloadError(AgentError):
    """The caller no longer wants the file; what arrived is kept for later."""


class BlobStore:
    """The verified files of the device."""

    def __init__(
        self,
        *,
        folder: Path,
        server: ReleaseServer,
        pace: Pace,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self._folder = folder
        self._server = server
        self._pace = pace
        self._free_bytes = free_bytes

    def fetch(
        self,
        target_path: str,
        *,
        length: int,
        sha256: str,
        cancelled: Callable[[], bool],
        limit: Callable[[], int | None] = lambda: None,
    ) -> Path:
        """Return the verified file, downloaded as far as it is not there yet.

        Args:
            target_path: TUF target path; the server keeps it as ``<folder>/<sha256>.<file>``.
            length: signed length in bytes.
            sha256: signed hash.
            cancelled: asked between pieces.
            limit: how many bytes per second may come, asked between pieces too.

        Raises:
            DownloadError: the file is not the signed one.
            CancelledDownloadError: the caller said so.
            ServerUnreachableError: the connection broke; what arrived is kept.
            ServerRefusedError: the server does not hand the file out.
            StoreError: the disk is too full or refused.
        """
        final = self._folder / sha256
        try:
            if _is_whole(final, length, sha256, cancelled):
                return final
            partial = _Partial(final.with_suffix(".part"), length, cancelled)
            self._check_room(length - partial.have)
            if partial.have < length:
                self._receive(target_path, partial, sha256, limit)
        except OSError as error:
            raise store.refusal(f"cannot store {target_path}", error) from error
        if partial.hexdigest() != sha256:
            store.remove_file(partial.path)
            raise DownloadError(
                f"{target_path} as the server sent it has SHA-256 {partial.hexdigest()[:12]}..., "
                f"signed is {sha256[:12]}..."
            )
        store.publish_file(partial.path, final)
        return final

    def collect(self, keep: AbstractSet[str]) -> list[str]:
        """Remove every file that is not of one of the kept hashes; return their names.

        Raises:
            StoreError: the disk refused.
        """
        removed = []
        for path in sorted(self._folder.iterdir()):
            if path.name.removesuffix(".part") not in keep:
                store.remove_file(path)
                removed.append(path.name)
        return removed

    def _paced(
        self, chunks: Iterator[bytes], partial: "_Partial", limit: Callable[[], int | None]
    ) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            self._pace.spend(len(chunk), limit=limit, cancelled=partial.cancelled)

    def make_room(self, lengths: Mapping[str, int], *, keep: frozenset[str]) -> None:
        """Have room for all files of an update before the first byte of them comes.

        Args:
            lengths: signed length of each file by its hash.
            keep: hashes that are needed besides; everything else goes if there is no room else.

        Raises:
            DiskFullError: there is no room.
            StoreError: the disk refused.
        """
        try:
            missing = sum(length - self._size(sha256) for sha256, length in lengths.items())
            if missing + _RESERVE_BYTES > self._free_bytes(self._folder):
                self.collect(keep | lengths.keys())
                self._check_room(missing)
        except OSError as error:
            raise store.refusal(f"cannot look at {self._folder}", error) from error

    def _check_room(self, missing: int) -> None:
        free = self._free_bytes(self._folder)
        if missing > 0 and missing + _RESERVE_BYTES > free:
            raise DiskFullError(
                f"the disk is too full: {missing} bytes are still to come and {free} are free, of "
                f"which {_RESERVE_BYTES} stay in reserve; make room on the device"
            )

    def _size(self, sha256: str) -> int:
        final = self._folder / sha256
        for path in (final, final.with_suffix(".part")):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def _receive(
        self,
        target_path: str,
        partial: "_Partial",
        sha256: str,
        limit: Callable[[], int | None],
    ) -> None:
        headers = {"Range": f"bytes={partial.have}-"} if partial.have else {}
        folder, _, file = target_path.rpartition("/")
        try:
            with self._server.open(
                f"{TARGETS_ROUTE}{folder}/{sha256}.{file}", headers, slowly=limit() is not None
            ) as body:
                chunks = self._paced(body.chunks(), partial, limit)
                partial.append(chunks, ranged=body.status == _PARTIAL_CONTENT)
        except ServerRefusedError as error:
            if error.status == _RANGE_NOT_SATISFIABLE:
                store.remove_file(partial.path)
            raise
        if partial.have < partial.length:
            raise ServerUnreachableError(
                f"{target_path} ended after {partial.have} of its signed {partial.length} bytes"
            )


class _Partial:
    """A file on its way: what is there of it, and the hash of that."""

    def __init__(self, path: Path, length: int, cancelled: Callable[[], bool]) -> None:
        """Hash what is there; more than the signed length is thrown away."""
        self.path = path
        self.length = length
        self.cancelled = cancelled
        self._digest, self.have = _digest_of(path, cancelled)
        if self.have > length:
            store.remove_file(path)
            self._digest, self.have = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def append(self, chunks: Iterator[bytes], *, ranged: bool) -> None:
        """Add what arrives; if it is the whole file again, pass over what is there."""
        skip = 0 if ranged else self.have
        with self.path.open("ab") as file:
            for chunk in chunks:
                _check_cancelled(self.cancelled)
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


def _digest_of(path: Path, cancelled: Callable[[], bool]) -> "tuple[hashlib._Hash, int]":
    digest = hashlib.sha256()
    have = 0
    with suppress(FileNotFoundError), path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            _check_cancelled(cancelled)
            digest.update(piece)
            have += len(piece)
    return digest, have


def _is_whole(path: Path, length: int, sha256: str, cancelled: Callable[[], bool]) -> bool:
    """Say whether a verified file still is what it was; a rotten one is removed."""
    digest, have = _digest_of(path, cancelled)
    if have == length and digest.hexdigest() == sha256:
        return True
    store.remove_file(path)
    return False


def _check_cancelled(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise CancelledDownloadError("the download is no longer wanted")

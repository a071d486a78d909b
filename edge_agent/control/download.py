"""Downloads of signed files into ``blobs/``: resumed, bounded, verified before they get their name.

A file arrives as ``<sha256>.part``. What is there of an earlier attempt is hashed again and the
rest is asked for by ``Range``; only a file of the signed length and SHA-256 is renamed, so a name
without ``.part`` is a verified file. Nothing is held in memory but one piece.

Where an older file is held and the server has a delta from it, the new one is rebuilt from both
instead. A delta is not trusted: whatever is wrong with it, the whole file is fetched after all, and
either way what counts is the signed hash. Neither is what an earlier attempt left: it may have come
from a wrong delta or from something between device and server, so a file that was begun then and
has the wrong hash is fetched once more, whole, before anybody is blamed.

A file that the disk does not read any more stays until another copy is verified and takes its name:
the next attempt to read it may succeed, and then nothing was lost.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_agent import store
from edge_agent.control.answer_head import PARTIAL_CONTENT
from edge_agent.control.delta_reading import rebuilt
from edge_agent.control.pace import Pace
from edge_agent.control.partial_file import DownloadError, PartialFile, digest_of
from edge_agent.control.server_client import (
    DELTAS_ROUTE,
    TARGETS_ROUTE,
    ReleaseServer,
    ServerRefusedError,
    ServerUnreachableError,
    UnfitAnswerError,
)
from edge_agent.control.turns import Turns
from edge_agent.store import DiskFullError, StoreError
from fleet_protocol.delta import DeltaError

logger = logging.getLogger(__name__)

_LEAST_DELTA_BYTES = 16 * 1024
_RESERVE_BYTES = 16 * 1024 * 1024
_RANGE_NOT_SATISFIABLE = 416


def _nobody(_reason: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a download shall go; the callables are asked between pieces.

    Attributes:
        cancelled: whether the file is no longer wanted.
        limit: how many bytes per second may come, None for any number.
        base: SHA-256 of a held file that the new one may resemble; empty for none.
        refused: told what was wrong with a delta.
    """

    cancelled: Callable[[], bool]
    limit: Callable[[], int | None] = lambda: None
    base: str = ""
    refused: Callable[[str], None] = _nobody


@dataclass(frozen=True, slots=True)
class _Download:
    target_path: str
    sha256: str
    course: Course

    @property
    def name(self) -> str:
        """The target's consistent name at the server."""
        folder, _, file = self.target_path.rpartition("/")
        return f"{folder}/{self.sha256}.{file}"

    @property
    def slowly(self) -> bool:
        """Whether there is a limit now."""
        return self.course.limit() is not None

    def fields(self, reason: str) -> dict[str, str]:
        """What a line of the log says of it."""
        return {"target": self.target_path, "reason": reason}


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
        self._turns = Turns()

    def fetch(self, target_path: str, *, length: int, sha256: str, course: Course) -> Path:
        """Return the verified file, downloaded as far as it is not there yet.

        Args:
            target_path: TUF target path; the server keeps it as ``<folder>/<sha256>.<file>``.
            length: signed length in bytes.
            sha256: signed hash.
            course: how it shall go.

        Raises:
            DownloadError: the file is not the signed one.
            CancelledDownloadError: the caller said so.
            ServerUnreachableError: the connection broke; what arrived is kept.
            UnfitAnswerError: what answered does not hand out this file; what was there is kept.
            ServerRefusedError: the server does not hand the file out.
            StoreError: the disk is too full or refused.
        """
        with self._turns.alone(sha256, course.cancelled):
            return self._fetch(_Download(target_path, sha256, course), length)

    def _fetch(self, download: _Download, length: int) -> Path:
        target_path, sha256, course = download.target_path, download.sha256, download.course
        final = self._folder / sha256
        try:
            if _is_whole(final, length, sha256, course.cancelled):
                return final
            partial = PartialFile(final.with_suffix(".part"), length, course.cancelled)
            self._check_room(length - partial.have)
            begun = partial.have > 0
            rebuilt = self._rebuild(download, partial)
            self._complete(download, partial)
            if (begun or rebuilt) and partial.hexdigest() != sha256:
                if rebuilt:
                    course.refused(f"the delta for {target_path} does not give the signed file")
                logger.warning("file_begun_anew", extra=download.fields("its hash was wrong"))
                partial.restart()
                self._complete(download, partial)
        except OSError as error:
            raise store.refusal(f"cannot store {target_path}", error) from error
        if partial.hexdigest() != sha256:
            found = partial.hexdigest()
            partial.restart()
            raise DownloadError(
                f"{target_path} as the server sent it has SHA-256 {found[:12]}..., "
                f"signed is {sha256[:12]}..."
            )
        try:
            store.publish_file(partial.path, final)
        except DiskFullError:
            raise
        except StoreError:
            # What could not be made durable once may look whole to us and never reach the disk.
            with suppress(StoreError):
                partial.restart()
            raise
        return final

    def collect(self, keep: AbstractSet[str]) -> list[str]:
        """Remove every file that is not of one of the kept hashes; return their names.

        Of these, too, what an attempt has left that is not needed since the file is there.
        A folder is not ours: where ``blobs/`` is a disk of its own, it has a ``lost+found``.
        A file that cannot be removed keeps none of the others.

        Raises:
            StoreError: the disk refused; what could be removed is.
        """
        removed, refused = [], []
        for path in self._superfluous(keep):
            try:
                store.remove_file(path)
            except StoreError as error:
                refused.append(error)
            else:
                removed.append(path.name)
        if refused:
            raise refused[0]
        return removed

    def _superfluous(self, keep: AbstractSet[str]) -> list[Path]:
        try:
            paths = sorted(self._folder.iterdir())
            return [
                path for path in paths if self._is_superfluous(path, keep) and not path.is_dir()
            ]
        except OSError as error:
            raise store.refusal(f"cannot look at {self._folder}", error) from error

    def _is_superfluous(self, path: Path, keep: AbstractSet[str]) -> bool:
        name = path.name.removesuffix(".part")
        if name not in keep:
            return True
        left_over = path.name != name and path.with_name(name).exists()
        return left_over and not self._turns.taken(name)

    def make_room(
        self, lengths: Mapping[str, int], *, keep: frozenset[str], anew: bool = False
    ) -> None:
        """Have room for all files of an update before the first byte of them comes.

        Args:
            lengths: signed length of each file by its hash.
            keep: hashes that are needed besides; everything else goes if there is no room else.
            anew: files that are there are fetched all the same.

        Raises:
            DiskFullError: there is no room.
            StoreError: the disk refused.
        """
        try:
            missing = sum(
                length - self._size(sha256, anew=anew) for sha256, length in lengths.items()
            )
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

    def _size(self, sha256: str, *, anew: bool) -> int:
        final = self._folder / sha256
        part = final.with_suffix(".part")
        for path in (part,) if anew else (final, part):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def _complete(self, download: _Download, partial: PartialFile) -> None:
        """Fetch what is missing of the file itself."""
        if partial.have == partial.length:
            return
        headers = {"Range": f"bytes={partial.have}-"} if partial.have else {}
        try:
            with self._server.open(
                f"{TARGETS_ROUTE}{download.name}", headers, slowly=download.slowly
            ) as body:
                if body.file_bytes not in {None, partial.length}:
                    raise UnfitAnswerError(
                        f"what answers for {download.target_path} has {body.file_bytes} bytes; "
                        f"signed are {partial.length}"
                    )
                partial.append(
                    self._paced(body.chunks(), download), ranged=body.status == PARTIAL_CONTENT
                )
        except ServerRefusedError as error:
            if error.status == _RANGE_NOT_SATISFIABLE:
                partial.restart()
            raise
        if partial.have < partial.length:
            raise ServerUnreachableError(
                f"{download.target_path} ended after {partial.have} of its signed "
                f"{partial.length} bytes"
            )

    def _rebuild(self, download: _Download, partial: PartialFile) -> bool:
        """Make the file of a held one and a delta; return whether anything came of that.

        Whatever goes wrong, the rest is fetched as if there were no delta. What broke off is the
        beginning of the file, and kept; what was wrong is not.
        """
        base = self._folder / download.course.base
        worth_it = partial.length >= _LEAST_DELTA_BYTES and partial.have < partial.length // 2
        if download.course.base in {"", download.sha256} or not worth_it or not base.is_file():
            return False
        before = partial.have
        try:
            with self._server.open(
                f"{DELTAS_ROUTE}{download.course.base}/{download.name}", {}, slowly=download.slowly
            ) as body:
                delta = self._paced(body.chunks(), download)
                partial.append(
                    rebuilt(delta, base=base, sha256=download.sha256, length=partial.length),
                    ranged=False,
                )
        except (ServerRefusedError, ServerUnreachableError) as error:
            logger.info("delta_not_used", extra=download.fields(str(error)))
        except DeltaError as error:
            logger.warning("delta_refused", extra=download.fields(str(error)))
            download.course.refused(f"the delta for {download.target_path}: {error}")
            if partial.have > before:
                partial.restart()
            return False
        return partial.have > before

    def _paced(self, chunks: Iterator[bytes], download: _Download) -> Iterator[bytes]:
        course = download.course
        for chunk in chunks:
            yield chunk
            self._pace.spend(len(chunk), limit=course.limit, cancelled=course.cancelled)


def _is_whole(path: Path, length: int, sha256: str, cancelled: Callable[[], bool]) -> bool:
    """Say whether a verified file still is what it was; a rotten one is removed.

    One that cannot be read stays: it may be the only copy, and the disk may read it another time.
    """
    try:
        digest, have = digest_of(path, cancelled)
        cut_short = path.exists() and have != path.stat().st_size
    except OSError as error:
        logger.warning("blob_unreadable", extra={"file": path.name, "reason": str(error)})
        return False
    if cut_short:
        logger.warning("blob_unreadable", extra={"file": path.name, "reason": f"ends at {have}"})
        return False
    if have == length and digest.hexdigest() == sha256:
        return True
    store.remove_file(path)
    return False

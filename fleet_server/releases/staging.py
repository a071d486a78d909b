"""Takes an upload's files from the wire to the staging folder, bounded by their signed lengths."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import BinaryIO

from fleet_server.errors import MalformedError, RefusedError, StorageFullError
from fleet_server.releases.multipart import PartBegin, PartData, PartEnd, Piece
from fleet_server.releases.verification import StoredFile

_CHUNK_BYTES = 1024 * 1024


class StagedFile:
    """One file that is being received; not a byte beyond its signed length is written."""

    def __init__(self, *, path: str, expected: StoredFile, destination: Path) -> None:
        self._path = path
        self._expected = expected
        self._digest = hashlib.sha256()
        self._received = 0
        self._pending = bytearray()
        self._file: BinaryIO = destination.open("xb")

    async def take(self, content: bytes) -> None:
        """Take some of the content.

        Raises:
            RefusedError: it is longer than signed.
            StorageFullError: the disk refuses.
        """
        self._received += len(content)
        if self._received > self._expected.length:
            raise RefusedError(
                f"{self._path} is longer than the {self._expected.length} bytes that are signed"
            )
        self._pending += content
        if len(self._pending) >= _CHUNK_BYTES:
            await self._flush()

    async def finish(self) -> None:
        """Make the file durable and check it.

        Raises:
            RefusedError: its length or hash is not the signed one.
            StorageFullError: the disk refuses.
        """
        await self._flush(sync=True)
        if self._received != self._expected.length:
            raise RefusedError(
                f"{self._path} has {self._received} bytes and {self._expected.length} are signed"
            )
        if self._digest.hexdigest() != self._expected.sha256:
            raise RefusedError(f"{self._path} does not have the SHA-256 that is signed")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def _flush(self, *, sync: bool = False) -> None:
        content, self._pending = bytes(self._pending), bytearray()
        try:
            await asyncio.to_thread(self._write, content, sync=sync)
        except OSError as error:
            raise StorageFullError(f"{self._path} could not be stored: {error}") from error

    def _write(self, content: bytes, *, sync: bool) -> None:
        self._digest.update(content)
        self._file.write(content)
        if sync:
            self._file.flush()
            os.fsync(self._file.fileno())


async def receive_files(
    pieces: AsyncIterator[Piece], *, wanted: Mapping[str, StoredFile], folder: Path
) -> dict[str, Path]:
    """Receive the ``targets`` parts of a form.

    Args:
        pieces: what follows the metadata.
        wanted: the signed files by target path; any other part is refused.
        folder: where to put them.

    Returns:
        Target path to verified file; `missing` says which did not come.

    Raises:
        MalformedError: a part is not one of the wanted files, or comes twice.
        RefusedError: length or hash is not the signed one.
        StorageFullError: the disk refuses.
    """
    staged: dict[str, Path] = {}
    current: StagedFile | None = None
    try:
        async for piece in pieces:
            match piece:
                case PartBegin(name, filename):
                    path = _target_path(name, filename, wanted, staged)
                    staged[path] = folder / str(len(staged))
                    current = StagedFile(path=path, expected=wanted[path], destination=staged[path])
                case PartData(content) if current is not None:
                    await current.take(content)
                case PartEnd() if current is not None:
                    await current.finish()
                    current.close()
                    current = None
    finally:
        if current is not None:
            current.close()
    return staged


def _target_path(
    name: str, filename: str | None, wanted: Mapping[str, StoredFile], staged: Mapping[str, Path]
) -> str:
    if name != "targets" or filename is None:
        raise MalformedError(
            f"unexpected form field {name[:80]!r}: after `metadata` come files named `targets`"
        )
    if filename not in wanted:
        raise RefusedError(
            f"{filename[:200]!r} is not a new target of the signed metadata; "
            "the file name of a part is its full target path"
        )
    if filename in staged:
        raise MalformedError(f"{filename} is in the form twice")
    return filename

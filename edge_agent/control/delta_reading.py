"""Rebuilds a file from a held one and a delta that is still arriving, piece by piece."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fleet_protocol.delta import DeltaError, Rebuilder


def rebuilt(delta: Iterator[bytes], *, base: Path, sha256: str, length: int) -> Iterator[bytes]:
    """Yield the new file.

    Args:
        delta: its pieces; it may not be larger than the file itself.
        base: the held file, named by its SHA-256.
        sha256: signed hash of the new file, which the caller checks.
        length: its signed length.

    Raises:
        DeltaError: it is not a delta between these files, or the held one cannot be read.
    """
    came = 0
    with _opened(base) as file:

        def read_base(offset: int, size: int) -> bytes:
            try:
                file.seek(offset)
                return file.read(size)
            except OSError as error:
                raise DeltaError(f"the held file cannot be read: {error}") from error

        rebuilder = Rebuilder(
            base_sha256=base.name, new_sha256=sha256, length=length, read_base=read_base
        )
        for piece in delta:
            came += len(piece)
            if came > length:
                raise DeltaError(f"the delta is larger than the {length} bytes of the file itself")
            yield from rebuilder.feed(piece)
        rebuilder.finish()


def _opened(base: Path) -> BinaryIO:
    try:
        return base.open("rb")
    except OSError as error:
        raise DeltaError(f"the held file cannot be read: {error}") from error

"""The body of an upload: multipart/form-data (RFC 7578), read from the bundle as it is sent.

Field ``metadata`` is the signed role, each field ``targets`` one file whose file name is its full
target path. The length is known beforehand and a file is never in memory as a whole.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

from model_pipeline.bundle import BundledFile

Progress = Callable[[int, int], None]
"""Called with the number of bytes sent and the number in all."""

_BOUNDARY_BYTES = 24


def unheard(_sent: int, _total: int) -> None:
    """Tell nobody about the progress."""


class ReleaseUpload:
    """One pass over metadata and files.

    Attributes:
        content_type: of the request, with the boundary.
        length: of the whole body in bytes.
    """

    def __init__(
        self,
        metadata: bytes,
        files: Mapping[str, BundledFile],
        *,
        progress: Progress = unheard,
    ) -> None:
        """Lay the body out.

        Args:
            metadata: the signed role.
            files: by target path.
            progress: told after each piece how much was sent, of how much.
        """
        boundary = secrets.token_hex(_BOUNDARY_BYTES)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        first = _part_head(boundary, "metadata", "role.json", "application/json")
        self._parts: list[tuple[bytes, int, Iterable[bytes]]] = [(first, len(metadata), [metadata])]
        for path, file in files.items():
            head = _part_head(boundary, "targets", path, "application/octet-stream")
            self._parts.append((head, file.length, file.chunks()))
        self._tail = f"--{boundary}--\r\n".encode()
        self.length = len(self._tail) + sum(
            len(head) + length + len(b"\r\n") for head, length, _ in self._parts
        )
        self._progress = progress

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body.

        Raises:
            BundleError: the bundle became unreadable since it was checked.
        """
        sent = 0
        for piece in self._content():
            yield piece
            sent += len(piece)
            self._progress(sent, self.length)

    def _content(self) -> Iterator[bytes]:
        for head, _, chunks in self._parts:
            yield head
            yield from chunks
            yield b"\r\n"
        yield self._tail


def _part_head(boundary: str, field: str, file_name: str, content_type: str) -> bytes:
    return (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{file_name}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()

"""A blocking HTTP client that shows every byte: keep-alive, pipelining, broken requests."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        """The body as a JSON object."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> str:
        """What the answer says went wrong."""
        return str(self.json["error"])


class RawClient:
    """One connection, to a Unix socket or a port of this machine."""

    def __init__(self, address: Path | int) -> None:
        """Connect."""
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(_TIMEOUT_S)
            self.socket.connect(str(address))
        else:
            self.socket = socket.create_connection(("127.0.0.1", address), _TIMEOUT_S)
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def call(
        self, method: str, path: str, body: bytes = b"", *, header_length: int | None = None
    ) -> RawResponse:
        """Send a request and return its answer."""
        self.socket.sendall(request_bytes(method, path, body, header_length=header_length))
        return self.receive(with_body=method != "HEAD")

    def receive(self, *, with_body: bool = True) -> RawResponse:
        """Return the next answer."""
        while b"\r\n\r\n" not in self._pending:
            self._more()
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0")) if with_body else 0
        while len(self._pending) < length:
            self._more()
        body, self._pending = self._pending[:length], self._pending[length:]
        return RawResponse(int(first.split()[1]), headers, body)

    def closed_by_server(self) -> bool:
        """Wait for the end of the connection; True if nothing came before it."""
        try:
            return not self._pending and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError(f"the server closed the connection after {self._pending[:200]!r}")
        self._pending += piece


def request_bytes(
    method: str, path: str, body: bytes = b"", *, header_length: int | None = None
) -> bytes:
    """Return a request as it travels."""
    head = f"{method} {path} HTTP/1.1\r\nHost: device\r\nContent-Length: {len(body)}\r\n"
    if header_length is not None:
        head += f"Inference-Header-Content-Length: {header_length}\r\n"
    return head.encode() + b"\r\n" + body

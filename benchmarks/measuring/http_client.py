"""The least HTTP/1.1 client that can drive every server alike: one kept-alive blocking connection.

A full client library costs more than the servers that are measured here differ; this one sends the
tensor's own memory and reads into one buffer that it keeps.
"""

import socket
import struct
from pathlib import Path

_OK = 200
_LINE_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"
_CHUNKED = b"\r\ntransfer-encoding: chunked"
_TIMEOUT = struct.pack("ll", 60, 0)
"""For the socket itself: a timeout of Python's would add a poll(2) to every call."""


class HttpClientError(Exception):
    """The server's answer is not a success with a length."""


class HttpClient:
    """A connection to a server on a Unix socket or on a loopback TCP port."""

    def __init__(self, address: Path | int) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        if isinstance(address, int):
            self._socket = socket.socket(socket.AF_INET)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
        try:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEOUT)
            if isinstance(address, int):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.connect(("127.0.0.1", address))
            else:
                self._socket.connect(str(address))
        except OSError:
            self._socket.close()
            raise
        self._buffer = bytearray(64 * 1024)

    def request(self, head: bytes, *body: bytes | memoryview) -> tuple[bytes, memoryview]:
        """Send a request; return the lower-case headers and the body of the answer.

        Args:
            head: request line and headers with the empty line at their end.
            body: its parts, as long together as the head says.

        Raises:
            HttpClientError: the status is not 200, or the answer's end is not marked.
            OSError: the connection broke.
        """
        self._send([head, *body])
        received, end = self._receive_head()
        headers = bytes(self._buffer[:end]).lower()
        start = end + len(_HEAD_END)
        if _CHUNKED in headers:
            answer = memoryview(self._receive_chunks(start, received))
        else:
            total = start + int(header(headers, b"content-length"))
            self._receive(received, total)
            answer = memoryview(self._buffer)[start:total]
        if int(headers[9:12]) != _OK:
            raise HttpClientError(f"{headers[9:].split(maxsplit=1)[0]!r}: {bytes(answer)[:500]!r}")
        return headers, answer

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, parts: list[bytes | memoryview]) -> None:
        sent = self._socket.sendmsg(parts)
        for part in parts:
            if sent < len(part):
                self._socket.sendall(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def _receive_head(self) -> tuple[int, int]:
        received = 0
        while True:
            count = self._socket.recv_into(memoryview(self._buffer)[received:])
            if not count:
                raise HttpClientError("the server closed the connection")
            received += count
            end = self._buffer.find(_HEAD_END, 0, received)
            if end >= 0:
                return received, end

    def _receive_chunks(self, at: int, received: int) -> bytes:
        parts: list[bytes] = []
        while True:
            line_end = self._buffer.find(_LINE_END, at, received)
            if line_end < 0:
                self._receive(received, received + 1)
                received += 1
                continue
            size = int(self._buffer[at:line_end], 16)
            at = line_end + len(_LINE_END) + size + len(_LINE_END)
            if at > received:
                self._receive(received, at)
                received = at
            if not size:
                return b"".join(parts)
            parts.append(bytes(self._buffer[line_end + len(_LINE_END) : at - len(_LINE_END)]))

    def _receive(self, received: int, total: int) -> None:
        if total > len(self._buffer):
            self._buffer = self._buffer + bytearray(total - len(self._buffer))
        while received < total:
            count = self._socket.recv_into(memoryview(self._buffer)[received:total])
            if not count:
                raise HttpClientError("the server closed the connection in an answer")
            received += count


def header(headers: bytes, name: bytes) -> bytes:
    """Return the value of a header.

    Args:
        headers: lower-case, without the empty line.
        name: lower-case.

    Raises:
        HttpClientError: it is not there.
    """
    start = headers.find(b"\r\n" + name + b":")
    if start < 0:
        raise HttpClientError(f"the answer has no {name.decode()}: {headers!r}")
    start += len(name) + 3
    end = headers.find(b"\r\n", start)
    return headers[start : end if end >= 0 else None].strip()

"""Polls over many kept-alive connections from one core, with as little work here as possible.

The requests are made beforehand. Each round writes one request on every connection, then reads one
answer from each: the server always has as many requests before it as there are connections.
"""

import os
import resource
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length: "
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class PollError(Exception):
    """An answer that is not the expected one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of polls brought.

    Attributes:
        server_cores: processor time of the server (with its threads) by the time of the run.
        generator_cores: the same of this process.
    """

    polls: int
    seconds: float
    server_cores: float
    generator_cores: float

    @property
    def per_second(self) -> float:
        """Polls answered in a second."""
        return self.polls / self.seconds


class Pollers:
    """Connections that poll one server."""

    def __init__(self, port: int, *, count: int, tls: ssl.SSLContext | None) -> None:
        """Connect with the first run."""
        self._connect = partial(_connected, port, tls)
        self._count = count
        self._sockets: list[socket.socket] = []

    def run(
        self, requests: Iterator[Sequence[bytes]], *, status: bytes, pid: int, seconds: float
    ) -> Load:
        """Connect anew, since servers close what is idle, and poll until the time is over.

        Args:
            requests: for each round a request for every connection; their end ends the run too.
            status: the expected one, such as ``b"304"``.
            pid: of the server.
            seconds: how long.

        Raises:
            PollError: another status came.
            OSError: nobody listens there, or the handshake failed.
        """
        self.close()
        self._sockets = [self._connect() for _ in range(self._count)]
        polls = 0
        server, own = _server_s(pid), _own_s()
        began = time.perf_counter()
        for batch in requests:
            for connection, request in zip(self._sockets, batch, strict=True):
                connection.sendall(request)
            for connection in self._sockets:
                _expect(connection, status)
            polls += len(batch)
            if time.perf_counter() - began >= seconds:
                break
        took = time.perf_counter() - began
        return Load(polls, took, (_server_s(pid) - server) / took, (_own_s() - own) / took)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._sockets:
            connection.close()


def _connected(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(connection, server_hostname="localhost") if tls else connection


def _expect(connection: socket.socket, status: bytes) -> None:
    answer = connection.recv(65536)
    while (head_end := answer.find(_HEAD_END)) < 0 or len(answer) < _length(answer, head_end):
        more = connection.recv(65536)
        if not more:
            raise PollError("the server closed a connection")
        answer += more
    if answer[9:12] != status:
        raise PollError(f"{answer[:500]!r}")


def _length(answer: bytes, head_end: int) -> int:
    head = answer[:head_end].lower()
    at = head.find(_LENGTH)
    if at < 0:
        return head_end + len(_HEAD_END)
    return head_end + len(_HEAD_END) + int(head[at + len(_LENGTH) :].split(b"\r", 1)[0])


def _server_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _own_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

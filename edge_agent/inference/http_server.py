"""Accepts connections on listening sockets, up to a number, and ends them in an orderly way."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

from edge_agent.errors import AgentError
from edge_agent.inference.body_memory import BodyMemory
from edge_agent.inference.busy_poll import BusyPoll
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.http_connection import HttpConnection, Limits
from edge_agent.inference.http_messages import Handler
from edge_agent.inference.unread_answers import UnreadAnswers

logger = logging.getLogger(__name__)

_BACKLOG = 512
_SWEEP_S = 0.5
_ACCEPT_RETRY_S = 0.5
_LAST_CALL_S = 0.05


class ListenError(AgentError):
    """An address cannot be listened on."""


def listen_unix(path: Path, mode: int) -> socket.socket:
    """Listen on a Unix socket that has its mode from the moment it exists.

    Raises:
        ListenError: the socket cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode of a socket is decided at bind; a chmod afterwards would leave a gap.
    previous = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on the socket {path}: {error.strerror}") from error
    finally:
        os.umask(previous)
    listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return listener


def listen_tcp(host: str, port: int) -> socket.socket:
    """Listen on a TCP address.

    Raises:
        ListenError: it is in use, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port} (settings runtime.host and runtime.port): "
            f"{error.strerror}; free the port or choose another one"
        ) from error
    listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return listener


def is_loopback(host: str) -> bool:
    """Say whether an address reaches callers on this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HttpServer:
    """A set of listeners that share a handler and a limit on connections."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        handler: Handler,
        limits: Limits,
        max_connections: int,
        clock: Callable[[], float],
        memory: BodyMemory | None = None,
        error_answers: ErrorAnswers | None = None,
    ) -> None:
        """Listen on nothing yet.

        Args:
            handler: answers the requests.
            limits: for each connection.
            max_connections: further ones wait, accepted at most one for each listener.
            clock: monotonic, in seconds.
            memory: for the bodies; None for as much as the limits say.
            error_answers: takes note of the requests that do not get as far as the handler; None
                where nobody asks.
        """
        self._handler = handler
        self._limits = limits
        self._clock = clock
        self.memory = memory or BodyMemory(max(limits.max_bodies_bytes, limits.max_body_bytes))
        self.error_answers = error_answers or ErrorAnswers()
        self._poll = BusyPoll(clock=clock, processors=len(os.sched_getaffinity(0)))
        self._room = asyncio.Semaphore(max_connections)
        self._connections: set[HttpConnection] = set()
        self._transports: dict[HttpConnection, asyncio.Transport] = {}
        self._unread = UnreadAnswers[HttpConnection]()
        self._empty = asyncio.Event()
        self._empty.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keep(self._sweep(), "sweep")

    def serve(self, listener: socket.socket, handler: Handler | None = None) -> None:
        """Accept connections on a socket until `close`.

        Args:
            listener: the socket.
            handler: answers its requests; None for the server's own.
        """
        self._keep(
            self._accept(listener, handler or self._handler), f"accept {listener.getsockname()!r}"
        )

    def opened(self, connection: HttpConnection) -> None:
        """Keep account of a new connection."""
        self._connections.add(connection)
        self._empty.clear()

    def closed(self, connection: HttpConnection) -> None:
        """Forget a connection and let the next one in."""
        self._connections.discard(connection)
        self._transports.pop(connection, None)
        self._room.release()
        if not self._connections:
            self._empty.set()

    async def close(self, timeout_s: float) -> None:
        """Accept no more, let requests in work finish, cut what is left after the time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.end_next()
        # What callers have sent already lies in the kernel: it is still answered.
        await asyncio.sleep(min(_LAST_CALL_S, timeout_s))
        for connection in list(self._connections):
            connection.finish()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        for connection in list(self._connections):
            connection.abort()

    def _keep(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, handler: Handler) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connected, _ = await loop.sock_accept(listener)
                except OSError as error:
                    # Out of descriptors or memory: those that are connected go on being served.
                    logger.warning("accept_failed", extra={"reason": str(error)})
                    await asyncio.sleep(_ACCEPT_RETRY_S)
                    continue
                await self._welcome(connected, handler)

    async def _welcome(self, connected: socket.socket, handler: Handler) -> None:
        loop = asyncio.get_running_loop()
        try:
            if connected.family != socket.AF_UNIX:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._room.acquire()
        except BaseException:
            connected.close()
            raise
        try:
            transport, connection = await loop.connect_accepted_socket(
                partial(self._connection, handler), connected
            )
        except OSError as error:
            self._room.release()
            connected.close()
            logger.debug("connection_failed", extra={"reason": str(error)})
        else:
            if connection in self._connections:
                self._transports[connection] = transport

    def _connection(self, handler: Handler) -> HttpConnection:
        return HttpConnection(
            handler=handler,
            limits=self._limits,
            owner=self,
            clock=self._clock,
            poll=self._poll,
        )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self._clock()
            others_wait = self._room.locked()
            for connection in list(self._connections):
                if connection.deadline < now:
                    connection.expire()
                elif others_wait and connection.idle_since < now - self._limits.idle_s:
                    connection.finish()
            self._cut_off_who_reads_nothing()

    def _cut_off_who_reads_nothing(self) -> None:
        waiting = {
            connection: transport.get_write_buffer_size()
            for connection, transport in self._transports.items()
        }
        if leaving := self._unread.to_be_cut(waiting, self.memory.lacked_bytes()):
            logger.warning(
                "answers_not_read",
                extra={
                    "connections": len(leaving),
                    "bytes": sum(waiting[connection] for connection in leaving),
                    "reason": "their callers read nothing while others found no room in "
                    "runtime.request_memory_bytes; the connections were closed",
                },
            )
        for connection in leaving:
            connection.abort()

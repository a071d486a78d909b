"""One gRPC server on one address: its bounds and its end."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from edge_agent.inference.grpc_api.service import Service
from edge_agent.inference.http_server import ListenError

_MAX_STREAMS_PER_CONNECTION = 128
_MODE_APPLICATIONS = 0o666
_LOOK_S = 0.5
_MAX_REASON = 300
_LIBRARY = "grpc._cython.cygrpc"
_CALLERS_FAULT = ("ExecuteBatchError raised in core", "Invalid encoding on")
_PATIENCE = (
    # A connection has to begin to speak HTTP/2, and to answer when it is asked whether it lives.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # One without calls is closed; its client connects again by itself when it has one.
    ("grpc.max_connection_idle_ms", 300_000),
    # Clients that ask whether we live, calls or not, are not taken for attackers.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the callers of one server may take together.

    Attributes:
        max_message_bytes: of one request; a larger one is refused with RESOURCE_EXHAUSTED.
        max_connections: a further one is closed at once.
        max_calls: at the same time, streams among them; a further one is RESOURCE_EXHAUSTED.
    """

    max_message_bytes: int
    max_connections: int
    max_calls: int


class GrpcServer:
    """A server that has one address and one life."""

    def __init__(self, *, service: Service, bounds: Bounds) -> None:
        """Listen on nothing yet; needs a running event loop.

        Args:
            service: answers the calls.
            bounds: see there.
        """
        logging.getLogger(_LIBRARY).addFilter(_is_no_fault_of_a_caller)
        self._service = service
        self._server = grpc.aio.server(
            handlers=[service.handlers()],
            options=[
                ("grpc.max_receive_message_length", bounds.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
                ("grpc.max_allowed_incoming_connections", bounds.max_connections),
                *_PATIENCE,
                # Two processes on one port would each get some of the calls.
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=bounds.max_calls,
        )

    async def listen_tcp(self, host: str, port: int) -> None:
        """Serve on a TCP address.

        Raises:
            ListenError: it is in use, or not an address of this machine.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenError(
                f"cannot listen on {address} for gRPC (settings runtime.host and "
                "runtime.grpc_port): it is in use or not an address of this machine; free the "
                "port or choose another one"
            ) from error
        await self._server.start()

    async def listen_unix(self, path: Path) -> None:
        """Serve on a Unix socket that every local user may open.

        Raises:
            ListenError: the socket cannot be made.
        """
        # As in `listen_unix` of the HTTP server: gRPC binds here and now.
        previous = os.umask(0o777 & ~_MODE_APPLICATIONS)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise ListenError(f"cannot listen on the socket {path} for gRPC: {error}") from error
        finally:
            os.umask(previous)
        await self._server.start()

    async def ended(self) -> str:
        """Wait until the library has given up by itself, as it does over some requests; say why."""
        try:
            while await self._server.wait_for_termination(_LOOK_S):
                pass
        except Exception as error:  # noqa: BLE001 (whatever has ended it)
            reason = f"{type(error).__name__}: {error}"[:_MAX_REASON]
        else:
            reason = "it was stopped"
        await self._server.stop(None)
        return reason

    async def close(self, timeout_s: float) -> None:
        """Accept no more, let calls finish, cut what is left after the time."""
        self._service.end_streams()
        await self._server.stop(timeout_s)


def _is_no_fault_of_a_caller(record: logging.LogRecord) -> bool:
    """Keep out what gRPC says, with a traceback, of callers who leave or send nonsense.

    An error by itself is why a server has ended, which `GrpcServer.ended` tells.
    """
    said = record.msg
    return not (isinstance(said, Exception) or str(said).startswith(_CALLERS_FAULT))

"""Serves the HTTP application over TLS, and stops it without cutting requests off."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from fleet_server.data_dir import DataDir
from fleet_server.errors import SetupError
from fleet_server.guarded_http import GuardedProtocol, GuardedState, Shortcut

GRACE_S = 10
"""How long requests that have begun may take when the server stops."""

_FLUSH_S = 1.0
"""How long an answer that is complete may take to get onto the wire."""

_HANDSHAKE_S = 10.0
"""A peer that has not finished the handshake of TLS by then is dropped."""


class HttpServer(uvicorn.Server):
    """One listening socket."""

    server_state: GuardedState

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = GuardedState()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the composition root."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with less patience for the handshake of TLS than uvicorn has."""
        await self.lifespan.startup()
        self.servers = [
            await asyncio.get_running_loop().create_server(
                self._connection,
                sock=listener,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                ssl_handshake_timeout=_HANDSHAKE_S if self.config.ssl else None,
                ssl_shutdown_timeout=_FLUSH_S if self.config.ssl else None,
            )
            for listener in sockets or []
        ]
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def finish(self, serving: asyncio.Task[None]) -> None:
        """Begin nothing more but answers about health, let requests end, then close.

        Args:
            serving: the task that runs `serve`.
        """
        self.server_state.draining = True
        deadline = asyncio.get_running_loop().time() + GRACE_S
        while self.server_state.tasks and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait([*self.server_state.tasks], timeout=0.2)
        self.should_exit = True
        await asyncio.wait([serving], timeout=_FLUSH_S)
        # Who keeps an idle connection open answers neither HTTP nor the end of TLS.
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.wait([serving], timeout=GRACE_S)


def make_server(data: DataDir, app: FastAPI, *, polls: Shortcut | None = None) -> HttpServer:
    """Prepare a server with the certificate of the data directory.

    Args:
        data: holds key and certificate.
        app: answers what the shortcut does not.
        polls: the shortcut.

    Raises:
        SetupError: key or certificate cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=type("Protocol", (GuardedProtocol,), {"shortcut": polls}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=data.online / "tls.crt",
        ssl_keyfile=data.online / "tls.pem",
        timeout_graceful_shutdown=2 * GRACE_S,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"cannot use the certificate {data.online / 'tls.crt'} with its key "
            f"{data.online / 'tls.pem'}: {error}"
        ) from error
    return HttpServer(config)

"""Turns the gRPC service on, where the settings ask for it and its libraries are installed.

Nothing of gRPC is imported before: a device that serves HTTP alone keeps the memory.
"""

import asyncio
import importlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.inference.answer_memory import AnswerMemory
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.http_server import ListenError, is_loopback
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.shared_memory import Regions
from edge_agent.settings import RuntimeSettings

if TYPE_CHECKING:
    from edge_agent.inference.grpc_api.server import GrpcServer

logger = logging.getLogger(__name__)

_MODULE = "edge_agent.inference.grpc_api.server"
_BIND_RETRY_S = 3.0
_STREAM_IDLE_S = 30.0
_MESSAGE_S = 30.0
_MESSAGE_BYTES_PER_S = 1024 * 1024
"""The slowest sender of the largest request that is waited for."""


class GrpcListeners:
    """The gRPC servers of the process: none, one for TCP, one for the Unix socket."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        plane: DataPlane,
        regions: Regions | None,
        memory: RequestMemory,
        error_answers: ErrorAnswers,
        settings: RuntimeSettings,
        socket: Path,
        clock: Callable[[], float],
    ) -> None:
        """Listen on nothing yet.

        Args:
            plane: holds the models.
            regions: of shared memory; None where it is not enabled.
            memory: from which is taken what requests and answers need.
            error_answers: takes note of what is refused.
            settings: say where to listen.
            socket: path of the Unix socket.
            clock: the one that times the plane's calls.
        """
        self._plane = plane
        self._regions = regions
        self._memory = memory
        self._error_answers = error_answers
        self._answers = AnswerMemory(memory)
        self._settings = settings
        self._socket = socket
        self._clock = clock
        self._servers: list[GrpcServer] = []

    async def serve(self) -> None:
        """Listen where the settings say, until cancelled.

        What cannot be done is logged, and HTTP serves anyway.
        """
        settings = self._settings
        if not (settings.grpc_port or settings.grpc_socket):
            return
        # gRPC writes to standard error in a format of its own; what matters is logged by us.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        try:
            await asyncio.get_running_loop().run_in_executor(None, importlib.import_module, _MODULE)
        except ImportError as error:
            logger.error(  # noqa: TRY400 (the installation's fault, no bug of ours)
                "grpc_not_serving",
                extra={
                    "reason": f"gRPC is turned on (settings runtime.grpc_port and "
                    f"runtime.grpc_socket) but its libraries are not installed ({error}); HTTP "
                    "is served; install them with: pip install 'skerry[grpc]'"
                },
            )
            return
        async with asyncio.TaskGroup() as listening:
            if settings.grpc_socket:
                listening.create_task(
                    self._keep_serving(
                        self._regions,
                        lambda server: server.listen_unix(self._socket),
                        {"socket": str(self._socket)},
                    )
                )
            if port := settings.grpc_port:
                host = settings.host
                listening.create_task(
                    self._keep_serving(
                        # As over HTTP: callers elsewhere have none of this machine's memory.
                        self._regions if is_loopback(host) else None,
                        lambda server: server.listen_tcp(host, port),
                        {"host": host, "port": port},
                    )
                )

    async def close(self, timeout_s: float) -> None:
        """Accept no more, let calls finish, cut what is left after the time."""
        await asyncio.gather(*(server.close(timeout_s) for server in self._servers))
        self._socket.unlink(missing_ok=True)

    async def _keep_serving(
        self,
        regions: Regions | None,
        listen: "Callable[[GrpcServer], Awaitable[None]]",
        where: Mapping[str, object],
    ) -> None:
        complained = False
        while True:
            server = self._server(regions)
            try:
                await listen(server)
            except ListenError as error:
                if not complained:
                    logger.error("grpc_not_listening", extra={"reason": str(error)})  # noqa: TRY400 (expected, and said in one sentence)
                complained = True
                await asyncio.sleep(_BIND_RETRY_S)
            else:
                complained = False
                logger.info("grpc_listening", extra=where)
                await self._end_of(server)

    async def _end_of(self, server: "GrpcServer") -> None:
        """Wait until a server ends that was not told to: there has to be a new one."""
        self._servers.append(server)
        reason = await server.ended()
        self._servers.remove(server)
        logger.error(
            "grpc_ended",
            extra={
                "reason": f"the library has ended its server ({reason}); calls that were under way "
                "over gRPC are lost, and it is started again"
            },
        )

    def _server(self, regions: Regions | None) -> "GrpcServer":
        from edge_agent.inference.grpc_api.callers import Callers, CallRates  # noqa: PLC0415 (an extra)
        from edge_agent.inference.grpc_api.server import Bounds, GrpcServer  # noqa: PLC0415 (an extra)
        from edge_agent.inference.grpc_api.service import Service  # noqa: PLC0415 (an extra)
        from edge_agent.inference.grpc_api.stream_places import StreamPlaces  # noqa: PLC0415 (an extra)

        settings = self._settings
        return GrpcServer(
            service=Service(
                self._plane,
                regions=regions,
                callers=Callers(
                    memory=self._memory,
                    answers=self._answers,
                    rates=CallRates(
                        requests_per_s=settings.rate_limit_per_s,
                        max_connections=settings.max_connections,
                        clock=self._clock,
                    ),
                    streams=StreamPlaces(
                        # The other half is for calls that end by themselves.
                        count=max(1, settings.max_connections // 2),
                        idle_s=_STREAM_IDLE_S,
                        clock=self._clock,
                    ),
                    message_s=_MESSAGE_S + settings.max_request_bytes / _MESSAGE_BYTES_PER_S,
                ),
                error_answers=self._error_answers,
                max_request_bytes=settings.max_request_bytes,
                clock=self._clock,
            ),
            bounds=Bounds(
                max_message_bytes=settings.max_request_bytes,
                max_connections=settings.max_connections,
                max_calls=settings.max_connections,
            ),
        )

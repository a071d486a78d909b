"""The runtime process: puts the parts together, starts them, and stops them in order."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from edge_agent import counters
from edge_agent.errors import AgentError
from edge_agent.inference.admin_routes import AdminRoutes
from edge_agent.inference.backends import catalog
from edge_agent.inference.backends.engine_cache import EngineCache
from edge_agent.inference.body_memory import BodyMemory
from edge_agent.inference.boot import serve_committed
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.execution_policy import policy_from
from edge_agent.inference.fatal_starts import FatalStarts
from edge_agent.inference.grpc_listeners import GrpcListeners
from edge_agent.inference.http_connection import Limits
from edge_agent.inference.http_errors import answering
from edge_agent.inference.http_messages import Handler
from edge_agent.inference.http_server import (
    HttpServer,
    ListenError,
    is_loopback,
    listen_tcp,
    listen_unix,
)
from edge_agent.inference.metrics import MetricsRoute
from edge_agent.inference.probe import Prober
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.shared_memory import Regions
from edge_agent.inference.survey import Survey
from edge_agent.inference.tracing import start_tracing
from edge_agent.inference.v2_routes import V2Routes
from edge_agent.settings import RuntimeSettings
from edge_agent.state_dir import StateDir

logger = logging.getLogger(__name__)

_MODE_APPLICATIONS = 0o666
_MODE_OWNER = 0o600
_ADMIN_CONNECTIONS = 16
_HTTP, _ADMIN, _GRPC = "http", "admin", "grpc"
"""The ways in, as the metrics name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How patient the process is.

    Attributes:
        stop_s: for the calls in flight when it shall stop.
        bind_retry_s: between attempts at a TCP address that is in use.
    """

    stop_s: float = 10.0
    bind_retry_s: float = 3.0


class RuntimeProcess:
    """One life of the runtime, after its pid file is locked."""

    def __init__(
        self,
        *,
        state: StateDir,
        settings: RuntimeSettings,
        times: Times,
        settings_problem: str = "",
    ) -> None:
        """Prepare; needs a running event loop.

        Args:
            state: the state directory.
            settings: the runtime's section.
            times: see there.
            settings_problem: told with the status; see `RuntimeStatus`.
        """
        self._state = state
        self._settings = settings
        self._times = times
        self._stop = asyncio.Event()
        clock = time.perf_counter
        workers = max(1, (os.cpu_count() or 1) // settings.threads)
        edge_tpu = Path(settings.edgetpu_library) if settings.edgetpu_library else None
        self._starts = FatalStarts(state, load_s=settings.load_s)
        self._engines = EngineCache(state.engines, blobs=state.blobs)
        backends = catalog.installed(
            threads=settings.threads,
            edgetpu_library=edge_tpu,
            probes=state.probes,
            engines=self._engines,
        )
        self._plane = DataPlane(
            loader=ReleaseLoader(
                state=state,
                epoch=os.urandom(8).hex(),
                catalog=backends,
                clock=clock,
                survey=Survey(
                    backends=backends.backends,
                    prober=Prober(state.probes),
                    options=[f"--edgetpu-library={edge_tpu}"] if edge_tpu else [],
                ).placements,
                refusal=self._starts.refusal,
            ),
            clock=clock,
            workers=workers,
            policy=policy_from(settings, workers=workers),
        )
        self._plane.settings_problem = settings_problem
        self._regions = _regions(settings)
        self._memory = BodyMemory(max(settings.request_memory_bytes, settings.max_request_bytes))
        self._error_answers = {name: ErrorAnswers() for name in (_HTTP, _ADMIN, _GRPC)}
        self._over_tcp = self._application_routes(
            # Shared memory means the memory of this machine: callers elsewhere have none of it.
            self._regions if is_loopback(settings.host) else None
        )
        limits = Limits(
            max_body_bytes=settings.max_request_bytes,
            requests_per_s=settings.rate_limit_per_s,
        )
        self._public = HttpServer(
            handler=self._application_routes(self._regions),
            limits=limits,
            max_connections=settings.max_connections,
            clock=clock,
            memory=self._memory,
            error_answers=self._error_answers[_HTTP],
        )
        self._admin = HttpServer(
            handler=answering(
                AdminRoutes(
                    self._plane,
                    active_set=state.active_set,
                    max_request_bytes=settings.max_request_bytes,
                    regions=self._regions,
                ),
                self._error_answers[_ADMIN],
            ),
            limits=Limits(max_body_bytes=settings.max_request_bytes),
            max_connections=_ADMIN_CONNECTIONS,
            clock=clock,
            error_answers=self._error_answers[_ADMIN],
        )
        self._grpc = GrpcListeners(
            plane=self._plane,
            regions=self._regions,
            memory=self._memory,
            error_answers=self._error_answers[_GRPC],
            settings=settings,
            socket=state.grpc_socket,
            clock=clock,
        )

    def _application_routes(self, regions: Regions | None) -> Handler:
        v2 = V2Routes(
            self._plane,
            max_request_bytes=self._settings.max_request_bytes,
            regions=regions,
            memory=self._memory,
        )
        metrics = MetricsRoute(
            self._plane, v2, clock=time.perf_counter, error_answers=self._error_answers
        )
        return answering(metrics, self._error_answers[_HTTP])

    async def run(self) -> bool:
        """Serve until SIGTERM or SIGINT; return False if calls were cut off at the end.

        Raises:
            AgentError: the Unix sockets cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        boot = asyncio.create_task(
            serve_committed(self._plane, self._state.active_set, starts=self._starts)
        )
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((boot, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not boot.done():
            self._starts.interrupted()
            return False
        boot.result()
        self._plane.traces = await start_tracing(
            self._settings.otlp_endpoint, clock=time.perf_counter
        )
        await asyncio.to_thread(self._engines.collect)
        # What lives now lives long: collections need not look at it again, which shortens pauses.
        gc.freeze()
        self._admin.serve(listen_unix(self._state.admin_socket, _MODE_OWNER))
        self._public.serve(listen_unix(self._state.runtime_socket, _MODE_APPLICATIONS))
        listening = [
            asyncio.create_task(self._serve_tcp()),
            asyncio.create_task(self._grpc.serve()),
        ]
        logger.info("runtime_serving", extra={"socket": str(self._state.runtime_socket)})
        await stopped
        for task in listening:
            task.cancel()
        return await self._end()

    async def _serve_tcp(self) -> None:
        settings = self._settings
        complained = False
        while settings.port:
            try:
                self._public.serve(listen_tcp(settings.host, settings.port), self._over_tcp)
            except ListenError as error:
                # The device goes on serving: applications still have the Unix socket.
                if not complained:
                    logger.error("tcp_not_listening", extra={"reason": str(error)})  # noqa: TRY400 (expected, and said in one sentence)
                complained = True
                await asyncio.sleep(self._times.bind_retry_s)
            else:
                logger.info("tcp_listening", extra={"host": settings.host, "port": settings.port})
                return

    async def _end(self) -> bool:
        logger.info("runtime_stopping")
        self._plane.accepting = False
        began = time.monotonic()
        await asyncio.gather(
            self._public.close(self._times.stop_s),
            self._admin.close(self._times.stop_s),
            self._grpc.close(self._times.stop_s),
        )
        for path in (self._state.runtime_socket, self._state.admin_socket):
            with contextlib.suppress(OSError):
                path.unlink()
        left_s = max(0.1, self._times.stop_s - (time.monotonic() - began))
        complete = await self._plane.close(left_s)
        if self._plane.traces is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._plane.traces.close)
        logger.info("runtime_stopped", extra={"calls_cut_off": not complete})
        return complete


def _regions(settings: RuntimeSettings) -> Regions | None:
    if not settings.shared_memory:
        return None
    return Regions(
        max_bytes=settings.shared_memory_bytes, max_request_bytes=settings.max_request_bytes
    )


def remove_leftovers(state: StateDir) -> None:
    """Remove what a killed runtime left in the way; only the holder of the pid file may.

    Raises:
        AgentError: it cannot be removed.
    """
    try:
        for path in (state.runtime_socket, state.admin_socket, state.grpc_socket):
            path.unlink(missing_ok=True)
        counters.remove_unfinished(state.run)
    except OSError as error:
        raise AgentError(f"cannot remove what an earlier runtime left: {error}") from error

"""Skerry's runtime process on a state directory of its own."""

import hashlib
import shutil
import sys
from pathlib import Path

import msgspec

from benchmarks.measuring.http_client import HttpClient
from benchmarks.measuring.server_process import ServerProcess, free_port
from benchmarks.models.bench_models import BenchModel
from benchmarks.peers.installed import answers
from benchmarks.peers.peer import Caller
from benchmarks.peers.v2_binary import V2Binary
from benchmarks.peers.v2_grpc import V2Grpc
from benchmarks.peers.v2_shared_memory import V2SharedMemory
from edge_agent.runtime_api import ActiveRelease, ActiveSet, RuntimeStatus
from edge_agent.state_dir import StateDir

_TCP = "V2 HTTP over TCP, binary tensors"
_SHARED = "V2 HTTP over Unix socket, shared memory"
_GRPC = "V2 gRPC over TCP, raw tensors"


class SkerryPeer:
    """Called over its Unix socket, as an application on the device would, and over TCP.

    gRPC is turned on by `start` alone: what a runtime takes that is only launched is measured
    without it, as devices have it unless they ask for it.
    """

    name = "Skerry"
    protocols = ("V2 HTTP over Unix socket, binary tensors", _TCP, _SHARED, _GRPC)

    def start(self, model: BenchModel, folder: Path, *, instances: int = 0) -> ServerProcess:
        """Start it; ``instances`` as in the runtime's settings.

        Raises:
            SystemExit: it did not come up.
        """
        state = committed_state(model, folder)
        self._grpc_port = free_port()
        server = self.launch(model, state, instances=instances, grpc_port=self._grpc_port)
        server.wait_until(lambda: answers(state.runtime_socket, f"/v2/models/{model.name}/ready"))
        return server

    def launch(
        self, model: BenchModel, state: StateDir, *, instances: int = 0, grpc_port: int = 0
    ) -> ServerProcess:
        """Start it on a state directory and do not wait."""
        self._model = model
        self._socket = state.runtime_socket
        self._port = free_port()
        return ServerProcess(
            [sys.executable, "-m", "edge_agent.inference", "--state", str(state.root)],
            log=state.root.parent / "skerry.log",
            environment={
                "SKERRY_AGENT_RUNTIME__PORT": str(self._port),
                "SKERRY_AGENT_RUNTIME__GRPC_PORT": str(grpc_port),
                "SKERRY_AGENT_RUNTIME__THREADS": "1",
                "SKERRY_AGENT_RUNTIME__SHARED_MEMORY": "true",
                "SKERRY_AGENT_RUNTIME__INSTANCES": str(instances),
            },
        )

    def connect(self, protocol: str) -> Caller:
        """Return a connection."""
        if protocol == _SHARED:
            return V2SharedMemory(self._socket, self._model)
        if protocol == _GRPC:
            return V2Grpc(self._grpc_port, self._model)
        return V2Binary(self._port if protocol == _TCP else self._socket, self._model)


def committed_state(model: BenchModel, folder: Path) -> StateDir:
    """Make the state directory of a device that has committed the model."""
    state = StateDir(folder / "state")
    state.create()
    sha256 = hashlib.sha256(model.path.read_bytes()).hexdigest()
    shutil.copyfile(model.path, state.blob(sha256))
    release = ActiveRelease(
        family=model.name,
        version="1.0.0",
        variant=model.path.stem,
        format=model.format,
        accelerator="cpu",
        sha256=sha256,
        inputs=[model.input],
        outputs=[model.output],
    )
    state.active_set.write_bytes(msgspec.json.encode(ActiveSet(releases=[release])))
    return state


def runtime_status(state: StateDir) -> RuntimeStatus:
    """Ask the running runtime what it holds.

    Raises:
        OSError: it does not run.
    """
    client = HttpClient(state.admin_socket)
    try:
        _, body = client.request(b"GET /admin/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return msgspec.json.decode(body, type=RuntimeStatus)
    finally:
        client.close()

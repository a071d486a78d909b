"""KServe's Python server, the base of its serving runtimes."""

from pathlib import Path

from benchmarks.measuring.server_process import ServerProcess, free_port
from benchmarks.models.bench_models import BenchModel
from benchmarks.peers.installed import answers, peer_python, program
from benchmarks.peers.peer import Caller
from benchmarks.peers.v2_binary import V2Binary
from benchmarks.peers.v2_grpc import V2Grpc

_HTTP = "V2 HTTP, binary tensors"


class KservePeer:
    """Called over gRPC first: over HTTP it turns binary tensors into lists of Python numbers."""

    name = "KServe 0.21.0"
    protocols = ("V2 gRPC, raw tensors", _HTTP)

    def start(self, model: BenchModel, folder: Path) -> ServerProcess:
        """Start it.

        Raises:
            SystemExit: it did not come up.
        """
        self._http_port, self._grpc_port = free_port(), free_port()
        self._model = model
        server = ServerProcess(
            [
                *(str(peer_python("kserve")), str(program("run_kserve"))),
                *("--model", str(model.path), "--name", model.name),
                *("--http-port", str(self._http_port), "--grpc-port", str(self._grpc_port)),
            ],
            log=folder / "kserve.log",
        )
        server.wait_until(lambda: answers(self._http_port, f"/v2/models/{model.name}/ready"))
        return server

    def connect(self, protocol: str) -> Caller:
        """Return a connection."""
        if protocol == _HTTP:
            return V2Binary(self._http_port, self._model)
        return V2Grpc(self._grpc_port, self._model)

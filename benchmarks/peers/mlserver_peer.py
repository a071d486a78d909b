"""MLServer: the reference server of the V2 protocol."""

from pathlib import Path

from benchmarks.measuring.server_process import ServerProcess, free_port
from benchmarks.models.bench_models import BenchModel
from benchmarks.peers.installed import answers, peer_python, program
from benchmarks.peers.peer import Caller
from benchmarks.peers.v2_grpc import V2Grpc

_PACKED = "gRPC, tensor packed into BYTES"


class MlserverPeer:
    """Called over gRPC: its HTTP takes JSON only, which for 600 kB takes a tenth of a second."""

    name = "MLServer 1.7.1"
    protocols = ("V2 gRPC, raw tensors", _PACKED)

    def start(self, model: BenchModel, folder: Path) -> ServerProcess:
        """Start it.

        Raises:
            SystemExit: it did not come up.
        """
        http_port, self._grpc_port = free_port(), free_port()
        self._model = model
        server = ServerProcess(
            [
                *(str(peer_python("mlserver")), str(program("run_mlserver"))),
                *("--model", str(model.path), "--name", model.name),
                *("--http-port", str(http_port), "--grpc-port", str(self._grpc_port)),
            ],
            log=folder / "mlserver.log",
        )
        server.wait_until(lambda: answers(http_port, f"/v2/models/{model.name}/ready"))
        return server

    def connect(self, protocol: str) -> Caller:
        """Return a connection."""
        return V2Grpc(self._grpc_port, self._model, packed=protocol == _PACKED)

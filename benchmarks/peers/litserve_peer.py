"""LitServe: FastAPI before a worker process."""

from pathlib import Path

import numpy as np

from benchmarks.measuring.http_client import HttpClient
from benchmarks.measuring.server_process import ServerProcess, free_port
from benchmarks.models.bench_models import Array, BenchModel
from benchmarks.peers.installed import answers, peer_python, program
from benchmarks.peers.peer import Caller


class LitservePeer:
    """Called over HTTP, the tensor's bytes as the body."""

    name = "LitServe 0.2.19"
    protocols = ("HTTP, the tensor as the body",)

    def start(self, model: BenchModel, folder: Path) -> ServerProcess:
        """Start it.

        Raises:
            SystemExit: it did not come up.
        """
        self._port = free_port()
        self._model = model
        server = ServerProcess(
            [
                *(str(peer_python("litserve")), str(program("run_litserve"))),
                *("--model", str(model.path), "--port", str(self._port)),
            ],
            log=folder / "litserve.log",
        )
        server.wait_until(lambda: answers(self._port, "/health"))
        return server

    def connect(self, protocol: str) -> Caller:  # noqa: ARG002 - there is one
        """Return a connection."""
        return _RawCaller(self._port, self._model)


class _RawCaller:
    def __init__(self, port: int, model: BenchModel) -> None:
        self._head = (
            "POST /predict HTTP/1.1\r\n"
            "Host: localhost\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Content-Length: {model.sample.nbytes}\r\n"
            "\r\n"
        ).encode()
        self._shape = model.output.shape
        self._client = HttpClient(port)

    def call(self, tensor: Array) -> Array:
        _, body = self._client.request(self._head, tensor.data.cast("B"))
        return np.frombuffer(body, np.float32).reshape(self._shape)

    def close(self) -> None:
        self._client.close()

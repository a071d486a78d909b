"""LitServe with one ONNX model; runs in the environment of ``litserve.txt``.

LitServe has no tensor protocol of its own: here the tensor's bytes travel as the body of request
and answer. For latency: one server process, one worker, its faster queue, no access log.
"""

# mypy: ignore-errors
# The libraries are those of another environment; the project's has none of them to check against.

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import litserve
import numpy as np
from fastapi import Depends, Request, Response
from numpy.typing import NDArray
from onnx_session import numpy_type, open_session

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, repr=False)
class Body:
    """The bytes of a request; as plain ``bytes`` LitServe would format them for each debug line."""

    data: bytes


async def _body(request: Request) -> Body:
    return Body(await request.body())


class OnnxApi(litserve.LitAPI):
    """Runs a model file; all of it but the body's way happens in the worker."""

    def __init__(self, path: Path) -> None:
        """Remember the file: the worker opens it."""
        super().__init__()
        self._path = path

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Open the session."""
        self._session = open_session(self._path)
        source = self._session.get_inputs()[0]
        self._name, self._shape, self._type = source.name, source.shape, numpy_type(source)

    def decode_request(self, request: Annotated[Body, Depends(_body)]) -> Array:
        """Return the tensor over the memory of the body."""
        return np.frombuffer(request.data, self._type).reshape(self._shape)

    def predict(self, tensor: Array) -> Array:
        """Run the model."""
        answer: Array = self._session.run(None, {self._name: tensor})[0]
        return answer

    def encode_response(self, output: Array) -> Response:
        """Return the output's bytes."""
        return Response(output.tobytes(), media_type="application/octet-stream")


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    server = litserve.LitServer(
        OnnxApi(chosen.model), accelerator="cpu", workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=chosen.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()

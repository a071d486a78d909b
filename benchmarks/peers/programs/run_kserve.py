"""KServe's Python server with one ONNX model; runs in the environment of ``kserve.txt``.

For latency: one uvicorn worker on uvloop, inference inline in the event loop, no log line per
request. KServe listens on all interfaces and has no setting for that.
"""

# mypy: ignore-errors
# The libraries are those of another environment; the project's has none of them to check against.

import argparse
import asyncio
import logging

import kserve
import uvloop
from kserve import InferOutput, InferRequest, InferResponse
from onnx_session import open_session

_REQUEST_LOGS = ("kserve.trace", "uvicorn.access")


class OnnxModel(kserve.Model):
    """Runs a model file."""

    def __init__(self, name: str, path: str) -> None:
        """Open the session."""
        super().__init__(name)
        self._session = open_session(path)
        self._output = self._session.get_outputs()[0].name
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - KServe's signature
        response_headers: dict[str, str] | None = None,  # noqa: ARG002 - KServe's signature
    ) -> InferResponse:
        """Run the model."""
        asked = payload.inputs[0]
        result = self._session.run(None, {asked.name: asked.as_numpy()})[0]
        output = InferOutput(name=self._output, shape=list(result.shape), datatype="FP32")
        output.set_data_from_numpy(result, binary_data=payload.use_binary_outputs)
        return InferResponse(
            response_id=payload.id,
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
        )


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    chosen = parser.parse_args()
    kserve.logging.configure_logging()
    for name in _REQUEST_LOGS:
        logging.getLogger(name).setLevel(logging.WARNING)
    server = kserve.ModelServer(
        http_port=chosen.http_port,
        grpc_port=chosen.grpc_port,
        workers=1,
        enable_latency_logging=False,
        event_loop="uvloop",
    )
    # The setting above reaches worker processes only.
    uvloop.install()
    asyncio.set_event_loop(uvloop.new_event_loop())
    server.start([OnnxModel(chosen.name, chosen.model)])


if __name__ == "__main__":
    main()

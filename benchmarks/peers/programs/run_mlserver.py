"""MLServer with one ONNX model; runs in the environment of ``mlserver.txt``.

For latency: inference inside the server process (no worker processes and queues), no metrics, no
compression, no access log. MLServer turns a tensor of numbers into a list of Python objects,
whatever the transport; a tensor packed into one BYTES element escapes that, so both are answered.
"""

# mypy: ignore-errors
# The libraries are those of another environment; the project's has none of them to check against.

import argparse
import asyncio

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import Datatype, InferenceRequest, InferenceResponse, ResponseOutput, TensorData
from onnx_session import numpy_type, open_session

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class OnnxRuntime(MLModel):
    """Runs the model file that ``parameters.uri`` names."""

    async def load(self) -> bool:
        """Open the session."""
        self._session = open_session(self.settings.parameters.uri)
        source = self._session.get_inputs()[0]
        self._shape, self._type = source.shape, numpy_type(source)
        self._output = self._session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model, inline: a hop to a thread would only add to the latency of one caller."""
        asked = payload.inputs[0]
        packed = Datatype(asked.datatype) == Datatype.BYTES
        if packed:
            tensor = np.frombuffer(asked.data.root[0], self._type).reshape(self._shape)
        else:
            tensor = NumpyCodec.decode_input(asked)
        result = self._session.run(None, {asked.name: tensor})[0]
        if packed:
            output = ResponseOutput(
                name=self._output,
                datatype=Datatype.BYTES,
                shape=[1],
                data=TensorData([result.tobytes()]),
            )
        else:
            output = NumpyCodec.encode_output(self._output, result)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    chosen = parser.parse_args()
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=chosen.http_port,
        grpc_port=chosen.grpc_port,
        grpc_max_message_length=_MAX_MESSAGE_BYTES,
        parallel_workers=0,
        metrics_endpoint=None,
        gzip_enabled=False,
    )
    model = ModelSettings(
        name=chosen.name,
        implementation=OnnxRuntime,
        parameters=ModelParameters(uri=chosen.model),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())

"""Inference messages of gRPC to requests and answers to bytes.

What a request means is `v2_codec.read_message`'s question, as it is for HTTP; here is only how it
travels. Answers are put together from parts: protobuf would copy each tensor twice.
"""

from collections.abc import Mapping, Sequence

import msgspec

from edge_agent.inference import v2_codec, v2_messages
from edge_agent.inference.errors import RequestError
from edge_agent.inference.grpc_api import typed_contents
from edge_agent.inference.grpc_api.wire.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
)
from edge_agent.inference.inference_request import InferenceRequest, Slice
from edge_agent.inference.tensors import Data, Tensor
from fleet_protocol.manifest import Datatype

_RAW_OUTPUT_TAG = b"\x32"
"""Field 6, ``raw_output_contents``, length-delimited; see the protobuf encoding."""
_INFER_RESPONSE_TAG = b"\x12"
"""Field 2, ``infer_response``."""
_FINAL = ModelInferResponse(
    parameters={"triton_final_response": InferParameter(bool_param=True)}
).SerializeToString()
"""Says on a stream that no further answer to the request follows."""

_SHARED_MEMORY = "shared_memory_region"


def decode_request(
    message: ModelInferRequest, *, time_left_s: float | None = None, shared_memory: bool = False
) -> InferenceRequest:
    """Read a request.

    Args:
        message: as it arrived.
        time_left_s: until the caller gives up, None if it waits for ever.
        shared_memory: whether tensors may lie in shared memory.

    Raises:
        RequestError: it is not one that could be run; the message says where and why.
    """
    inputs, segments = _inputs(message)
    parameters = _values(message.parameters)
    parameters.setdefault("binary_data_output", True)
    if time_left_s is not None:
        _shorten(parameters, time_left_s)
    entries = {
        "id": message.id,
        "parameters": parameters,
        "inputs": inputs,
        "outputs": [
            {"name": output.name, "parameters": _values(output.parameters)}
            for output in message.outputs
        ],
    }
    try:
        request = msgspec.convert(entries, v2_messages.Request)
    except msgspec.ValidationError as error:
        raise RequestError(f"not an inference request: {error}") from error
    return v2_codec.read_message(request, segments, shared_memory=shared_memory)


def encode_answer(
    request: InferenceRequest, outputs: Sequence[Tensor], *, model_name: str, model_version: str
) -> bytes:
    """Return a ``ModelInferResponse`` as bytes.

    Raises:
        RequestError: an output that is wanted as typed contents cannot travel so.
    """
    message = ModelInferResponse(model_name=model_name, model_version=model_version, id=request.id)
    raw: list[Data] = []
    typed = True
    for tensor in request.wanted(outputs):
        binary = request.as_binary(tensor.name)
        output = message.outputs.add(
            name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape
        )
        place = request.shared_outputs.get(tensor.name)
        raw.append(tensor.data if binary and place is None else b"")
        typed = typed and not binary and place is None
        if place is not None:
            _note_place(output, place, len(tensor.data))
        elif not binary:
            output.contents.CopyFrom(typed_contents.of_tensor(tensor))
    parts: list[Data] = [message.SerializeToString()]
    # Clients find an output's raw contents by its place, and Triton's C++ client looks for those of
    # one in shared memory too: each output has an entry, unless all have typed contents.
    if not typed:
        for data in raw:
            parts += _RAW_OUTPUT_TAG, _length(len(data)), data
    return b"".join(parts)


def stream_answer(answer: bytes) -> bytes:
    """Return a ``ModelStreamInferResponse`` that holds an encoded answer."""
    # Repeated fields and maps of one message may come in pieces: appending to it is merging.
    length = _length(len(answer) + len(_FINAL))
    return b"".join((_INFER_RESPONSE_TAG, length, answer, _FINAL))


def _inputs(message: ModelInferRequest) -> tuple[list[dict[str, object]], list[Data]]:
    raw = list(message.raw_input_contents)
    typed = not raw
    raw.reverse()
    entries: list[dict[str, object]] = []
    segments: list[Data] = []
    for given in message.inputs:
        parameters = _values(given.parameters)
        shape = list(given.shape)
        if not typed and given.HasField("contents"):
            raise RequestError(
                f"input {given.name!r} has typed contents in a request with raw_input_contents: "
                "use one or the other for all inputs"
            )
        data: Data = b""
        if _SHARED_MEMORY not in parameters:
            if typed:
                data = typed_contents.to_bytes(
                    given.contents, name=given.name, datatype=_datatype(given), shape=shape
                )
            elif raw:
                data = raw.pop()
            else:
                raise RequestError(
                    f"raw_input_contents has {len(message.raw_input_contents)} entries: none is "
                    f"left for input {given.name!r}"
                )
            parameters["binary_data_size"] = len(data)
        segments.append(data)
        entries.append(
            {
                "name": given.name,
                "shape": shape,
                "datatype": given.datatype,
                "parameters": parameters,
            }
        )
    if raw:
        raise RequestError(
            f"raw_input_contents has {len(message.raw_input_contents)} entries, the inputs that "
            f"are not in shared memory take {len(message.raw_input_contents) - len(raw)}"
        )
    return entries, segments


def _note_place(output: ModelInferResponse.InferOutputTensor, place: Slice, byte_size: int) -> None:
    parameters = output.parameters
    parameters["shared_memory_region"].string_param = place.region
    parameters["shared_memory_byte_size"].int64_param = byte_size
    if place.offset:
        parameters["shared_memory_offset"].int64_param = place.offset


def _datatype(given: ModelInferRequest.InferInputTensor) -> Datatype:
    try:
        return Datatype(given.datatype)
    except ValueError:
        raise RequestError(
            f"input {given.name!r} has datatype {given.datatype[:40]!r}; known are "
            f"{', '.join(Datatype)}"
        ) from None


def _shorten(parameters: dict[str, object], time_left_s: float) -> None:
    """Let the request's timeout end no later than its caller's patience."""
    left_us = max(1, int(time_left_s * 1e6))
    given_us = parameters.get("timeout", 0)
    if isinstance(given_us, int) and (given_us == 0 or given_us > left_us):
        parameters["timeout"] = left_us


def _values(parameters: Mapping[str, InferParameter]) -> dict[str, object]:
    if not parameters:
        return {}
    values: dict[str, object] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            values[name] = getattr(parameter, choice)
    return values


def _length(size: int) -> bytes:
    """Return a size as protobuf writes it: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while size >> 7:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)

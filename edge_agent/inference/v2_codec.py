"""Bytes to inference requests and answers to bytes: V2 JSON and the binary tensor data extension.

Pure: no I/O, no model. Whether the tensors are what a model takes is the data plane's question.
"""

from collections.abc import Sequence

import msgspec

from edge_agent.inference import json_data, v2_messages
from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import Data, Tensor, described, size_bytes
from fleet_protocol.manifest import Datatype

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Reading JSON holds the interpreter, so everybody else waits: more data than this comes binary."""

_DATATYPES: dict[str, Datatype] = {datatype.value: datatype for datatype in Datatype}
_REQUEST = msgspec.json.Decoder(v2_messages.Request)
_ENCODER = msgspec.json.Encoder()


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose tensors are sound in themselves.

    Attributes:
        id: the caller's, returned with the answer; empty if there is none.
        outputs: names in the order wanted, each with "as binary data"; None for all outputs.
        binary_output: how outputs travel when ``outputs`` does not say.
    """

    id: str
    inputs: list[Tensor]
    outputs: dict[str, bool] | None
    binary_output: bool


class EncodedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as bytes.

    Attributes:
        header_length: length of the JSON if binary data follows it, None if all is JSON.
        parts: to be sent one after the other.
    """

    header_length: int | None
    parts: list[Data]


def decode_request(body: Data, header_length: int | None) -> InferenceRequest:
    """Read a request.

    Args:
        body: the whole body; tensors of the answer refer to its memory.
        header_length: the ``Inference-Header-Content-Length``, None if the caller sent none.

    Raises:
        RequestError: the bytes are not a request; the message says where and why.
    """
    view = memoryview(body)
    if header_length is None:
        header_length = len(view)
    elif header_length > len(view):
        raise RequestError(
            f"Inference-Header-Content-Length is {header_length}, the body has {len(view)} bytes"
        )
    message = _decode_json(view[:header_length])
    requested = _requested_outputs(message)
    return InferenceRequest(
        id=message.id,
        inputs=_inputs(message.inputs, view[header_length:]),
        outputs=requested,
        binary_output=message.parameters.binary_data_output,
    )


def encode_answer(
    request: InferenceRequest, outputs: Sequence[Tensor], *, model_name: str, model_version: str
) -> EncodedAnswer:
    """Return the answer to a request.

    Args:
        request: says which outputs are wanted and how.
        outputs: all outputs of the model, among them every one that is wanted.
        model_name: the family.
        model_version: the release's version.

    Raises:
        RequestError: an output that is wanted as JSON holds infinities or NaN.
    """
    described_outputs: list[v2_messages.Output] = []
    parts: list[Data] = [b""]
    for tensor, binary in _wanted(request, outputs):
        if binary:
            parts.append(tensor.data)
        described_outputs.append(
            v2_messages.Output(
                name=tensor.name,
                datatype=tensor.datatype.value,
                shape=tensor.shape,
                parameters=v2_messages.BinarySize(len(tensor.data)) if binary else None,
                data=None if binary else json_data.to_values(tensor),
            )
        )
    parts[0] = _ENCODER.encode(
        v2_messages.Response(
            id=request.id,
            model_name=model_name,
            model_version=model_version,
            outputs=described_outputs,
        )
    )
    return EncodedAnswer(header_length=len(parts[0]) if len(parts) > 1 else None, parts=parts)


def _wanted(request: InferenceRequest, outputs: Sequence[Tensor]) -> list[tuple[Tensor, bool]]:
    if request.outputs is None:
        return [(tensor, request.binary_output) for tensor in outputs]
    by_name = {tensor.name: tensor for tensor in outputs}
    return [(by_name[name], binary) for name, binary in request.outputs.items()]


def _decode_json(text: memoryview) -> v2_messages.Request:
    if not text:
        raise RequestError("the request has no JSON: send an inference request object")
    if len(text) > MAX_JSON_BYTES:
        raise RequestError(
            f"the request has {len(text)} bytes of JSON, at most {MAX_JSON_BYTES} are read: send "
            "large tensors as binary data (binary_data_size)"
        )
    try:
        return _REQUEST.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"not an inference request: {error}") from error
    except RecursionError:
        raise RequestError("not an inference request: nested too deeply") from None


def _requested_outputs(message: v2_messages.Request) -> dict[str, bool] | None:
    if not message.outputs:
        return None
    requested: dict[str, bool] = {}
    for output in message.outputs:
        if output.name in requested:
            raise RequestError(f"output {output.name!r} is requested twice")
        if output.parameters.classification:
            raise RequestError(
                f"output {output.name!r}: the classification extension is not offered; ask for "
                "the scores and choose the largest"
            )
        if output.parameters.shared_memory_region is not None:
            raise RequestError(f"output {output.name!r}: shared memory is not enabled here")
        binary = output.parameters.binary_data
        requested[output.name] = message.parameters.binary_data_output if binary is None else binary
    return requested


def _inputs(inputs: Sequence[v2_messages.Input], binary: memoryview) -> list[Tensor]:
    tensors: list[Tensor] = []
    names: set[str] = set()
    offset = 0
    for entry in inputs:
        if entry.name in names:
            raise RequestError(f"input {entry.name!r} is given twice")
        names.add(entry.name)
        size = entry.parameters.binary_data_size
        tensors.append(_input(entry, binary[offset : offset + (size or 0)]))
        offset += size or 0
    if offset != len(binary):
        raise RequestError(
            f"{len(binary)} bytes follow the JSON, the inputs' binary_data_size add up to "
            f"{offset}; Inference-Header-Content-Length must be the length of the JSON"
        )
    return tensors


def _input(entry: v2_messages.Input, binary: memoryview) -> Tensor:
    datatype = _DATATYPES.get(entry.datatype)
    if datatype is None:
        raise RequestError(
            f"input {entry.name!r} has datatype {entry.datatype[:40]!r}; known are "
            f"{', '.join(_DATATYPES)}"
        )
    if entry.parameters.shared_memory_region is not None:
        raise RequestError(f"input {entry.name!r}: shared memory is not enabled here")
    text = memoryview(entry.data)
    if (not text) == (entry.parameters.binary_data_size is None):
        raise RequestError(f"input {entry.name!r} needs either data or binary_data_size")
    if text:
        data: Data = json_data.to_bytes(text, name=entry.name, datatype=datatype, shape=entry.shape)
    else:
        data = _checked_binary(entry, datatype, binary)
    return Tensor(name=entry.name, datatype=datatype, shape=entry.shape, data=data)


def _checked_binary(entry: v2_messages.Input, datatype: Datatype, binary: memoryview) -> memoryview:
    declared = entry.parameters.binary_data_size
    expected = size_bytes(datatype, entry.shape)
    if declared != expected:
        raise RequestError(
            f"input {entry.name!r} declares {declared} bytes of binary data, "
            f"{described(datatype, entry.shape)} takes {expected}"
        )
    if len(binary) != expected:
        raise RequestError(
            f"input {entry.name!r} declares {declared} bytes of binary data, only {len(binary)} "
            "are left in the body"
        )
    if datatype is Datatype.BOOL and binary.tobytes().translate(None, b"\0\1"):
        raise RequestError(f"input {entry.name!r} is BOOL and has bytes other than 0 and 1")
    return binary

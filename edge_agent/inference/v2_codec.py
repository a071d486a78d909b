"""Bytes to inference requests and answers to bytes: V2 JSON and the binary tensor data extension.

Pure: no I/O, no model. Whether the tensors are what a model takes is the data plane's question.
Tensors in shared memory are named here and fetched in `edge_agent.inference.shared_memory`.
"""

import math
from collections.abc import Sequence

import msgspec

from edge_agent.inference import json_data, v2_messages
from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import Data, Tensor, described, size_bytes
from fleet_protocol import bytes_tensor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Datatype, TensorSpec

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Reading JSON holds the interpreter, so everybody else waits: more data than this comes binary."""

MAX_ELEMENTS = 1 << 16
"""Of one BYTES input: they are walked one by one, which keeps everybody else waiting."""

_DATATYPES: dict[str, Datatype] = {datatype.value: datatype for datatype in Datatype}
_CHECKED = frozenset({Datatype.BOOL, Datatype.BYTES})
_REQUEST = msgspec.json.Decoder(v2_messages.Request)
_ENCODER = msgspec.json.Encoder()


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a registered shared memory region.

    Attributes:
        offset: from the beginning of the region.
    """

    region: str
    offset: int
    byte_size: int


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose tensors are sound in themselves.

    Attributes:
        id: the caller's, returned with the answer; empty if there is none.
        outputs: names in the order wanted, each with "as binary data"; None for all outputs.
        binary_output: how outputs travel when ``outputs`` does not say.
        timeout_us: from the arrival of the request to its answer; 0 for no limit.
        priority: 1 is first; 0 for the default.
        classes: outputs of which so many of the highest classes are wanted instead of the values.
        shared_inputs: inputs that lie in shared memory; their data are empty until
            `shared_memory.Regions.filled`.
        shared_outputs: outputs that shall be put into shared memory.
    """

    id: str
    inputs: list[Tensor]
    outputs: dict[str, bool] | None
    binary_output: bool
    timeout_us: int = 0
    priority: int = 0
    classes: dict[str, int] = {}
    shared_inputs: dict[str, Slice] = {}
    shared_outputs: dict[str, Slice] = {}


class EncodedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as bytes.

    Attributes:
        header_length: length of the JSON if binary data follows it, None if all is JSON.
        parts: to be sent one after the other.
    """

    header_length: int | None
    parts: list[Data]


def decode_request(
    body: Data, header_length: int | None, *, shared_memory: bool = False
) -> InferenceRequest:
    """Read a request.

    Args:
        body: the whole body; tensors of the answer refer to its memory.
        header_length: the ``Inference-Header-Content-Length``, None if the caller sent none.
        shared_memory: whether tensors may lie in shared memory.

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
    return read_message(
        message, _segments(message.inputs, view[header_length:]), shared_memory=shared_memory
    )


def read_message(
    message: v2_messages.Request, segments: Sequence[Data], *, shared_memory: bool = False
) -> InferenceRequest:
    """Read a request whose message has been understood, whatever protocol carried it.

    Args:
        message: the request.
        segments: the binary data of each input, empty for one that has none.
        shared_memory: whether tensors may lie in shared memory.

    Raises:
        RequestError: it is not one that could be run; the message says where and why.
    """
    if message.parameters.sequence_id:
        raise RequestError(
            "parameter sequence_id: calls that share a state are not offered here, every call "
            "stands for itself; leave it out"
        )
    shared_inputs = _shared(message.inputs, "input", enabled=shared_memory)
    return InferenceRequest(
        id=message.id,
        inputs=_inputs(message.inputs, segments),
        outputs=_requested_outputs(message),
        binary_output=message.parameters.binary_data_output,
        timeout_us=message.parameters.timeout,
        priority=message.parameters.priority,
        classes=_classes(message.outputs),
        shared_inputs=shared_inputs,
        shared_outputs=_shared(message.outputs, "output", enabled=shared_memory),
    )


def decode_raw(body: Data, inputs: Sequence[TensorSpec]) -> InferenceRequest:
    """Read a request that is nothing but the data of the only input; all outputs come binary.

    The size of the data decides about the dimension that the model leaves free. Where the batch
    and one more are free the batch is 1, and a BYTES tensor has one element, which is the body.

    Raises:
        RequestError: the model is not one for such requests, or the size does not fit.
    """
    if len(inputs) != 1:
        raise RequestError(
            f"Inference-Header-Content-Length is 0, so the body is one raw tensor, but the model "
            f"takes {len(inputs)} inputs: send an inference request object"
        )
    spec = inputs[0]
    if spec.datatype is Datatype.BYTES:
        data: Data = bytes_tensor.pack([bytes(body)])
        shape = _raw_shape(spec, 1)
    else:
        items, rest = divmod(len(body), size_bytes(spec.datatype, []))
        shape = _raw_shape(spec, -1 if rest else items)
        data = body
    tensor = Tensor(name=spec.name, datatype=spec.datatype, shape=shape, data=data)
    return InferenceRequest(
        id="", inputs=[checked_elements(tensor)], outputs=None, binary_output=True
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
        place = request.shared_outputs.get(tensor.name) if request.shared_outputs else None
        parameters: v2_messages.BinarySize | v2_messages.SharedPlace | None = None
        if place is not None:
            parameters = v2_messages.SharedPlace(place.region, len(tensor.data), place.offset)
        elif binary:
            parts.append(tensor.data)
            parameters = v2_messages.BinarySize(len(tensor.data))
        described_outputs.append(
            v2_messages.Output(
                name=tensor.name,
                datatype=tensor.datatype.value,
                shape=tensor.shape,
                parameters=parameters,
                data=None if parameters else json_data.to_values(tensor),
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
        binary = output.parameters.binary_data
        requested[output.name] = message.parameters.binary_data_output if binary is None else binary
    return requested


def _classes(outputs: Sequence[v2_messages.RequestedOutput]) -> dict[str, int]:
    classes: dict[str, int] = {}
    for output in outputs:
        if output.parameters.classification:
            if output.parameters.shared_memory_region is not None:
                raise RequestError(
                    f"output {output.name!r}: classes cannot be put into shared memory"
                )
            classes[output.name] = output.parameters.classification
    return classes


def _shared(
    entries: Sequence[v2_messages.Input] | Sequence[v2_messages.RequestedOutput],
    kind: str,
    *,
    enabled: bool,
) -> dict[str, Slice]:
    places: dict[str, Slice] = {}
    for entry in entries:
        parameters = entry.parameters
        if parameters.shared_memory_region is None:
            continue
        if not enabled:
            raise RequestError(
                f"{kind} {entry.name!r}: shared memory is not enabled here "
                "(setting runtime.shared_memory)"
            )
        if parameters.shared_memory_byte_size is None:
            raise RequestError(f"{kind} {entry.name!r} needs shared_memory_byte_size")
        places[entry.name] = Slice(
            region=parameters.shared_memory_region,
            offset=parameters.shared_memory_offset,
            byte_size=parameters.shared_memory_byte_size,
        )
    return places


def _raw_shape(spec: TensorSpec, items: int) -> list[int]:
    free = [at for at, size in enumerate(spec.shape) if size == -1]
    shape = [1 if size == -1 else size for size in spec.shape]
    deducible = len(free) < 2 or (len(free) == 2 and free[0] == 0)  # noqa: PLR2004 (batch, one more)
    fixed = math.prod(shape)
    if free and fixed:
        shape[free[-1]] = items // fixed
    if not deducible or items < 0 or math.prod(shape) != items:
        raise RequestError(
            f"Inference-Header-Content-Length is 0, so the body is the raw tensor {spec.name!r}, "
            f"but its size does not say which shape of {described(spec.datatype, spec.shape)} it "
            "has: send an inference request object"
        )
    return shape


def _segments(inputs: Sequence[v2_messages.Input], binary: memoryview) -> list[memoryview]:
    segments: list[memoryview] = []
    offset = 0
    for entry in inputs:
        end = offset + (entry.parameters.binary_data_size or 0)
        segments.append(binary[offset:end])
        offset = end
    if offset > len(binary):
        raise RequestError(
            f"the inputs' binary_data_size add up to {offset} bytes, only {len(binary)} are left "
            "behind the JSON"
        )
    if offset != len(binary):
        raise RequestError(
            f"{len(binary)} bytes follow the JSON, the inputs' binary_data_size add up to "
            f"{offset}; Inference-Header-Content-Length must be the length of the JSON"
        )
    return segments


def _inputs(inputs: Sequence[v2_messages.Input], segments: Sequence[Data]) -> list[Tensor]:
    tensors: list[Tensor] = []
    names: set[str] = set()
    for entry, segment in zip(inputs, segments, strict=True):
        if entry.name in names:
            raise RequestError(f"input {entry.name!r} is given twice")
        names.add(entry.name)
        tensors.append(_input(entry, segment))
    return tensors


def _input(entry: v2_messages.Input, binary: Data) -> Tensor:
    datatype = _DATATYPES.get(entry.datatype)
    if datatype is None:
        raise RequestError(
            f"input {entry.name!r} has datatype {entry.datatype[:40]!r}; known are "
            f"{', '.join(_DATATYPES)}"
        )
    text = memoryview(entry.data)
    shared = entry.parameters.shared_memory_region is not None
    if bool(text) + (entry.parameters.binary_data_size is not None) + shared != 1:
        raise RequestError(
            f"input {entry.name!r} needs either data or binary_data_size or shared_memory_region"
        )
    if text:
        data: Data = json_data.to_bytes(text, name=entry.name, datatype=datatype, shape=entry.shape)
        return Tensor(name=entry.name, datatype=datatype, shape=entry.shape, data=data)
    if shared:
        _check_size(entry, datatype, entry.parameters.shared_memory_byte_size)
        return Tensor(name=entry.name, datatype=datatype, shape=entry.shape, data=b"")
    _check_size(entry, datatype, entry.parameters.binary_data_size)
    tensor = Tensor(name=entry.name, datatype=datatype, shape=entry.shape, data=binary)
    return checked_elements(tensor) if datatype in _CHECKED else tensor


def _check_size(entry: v2_messages.Input, datatype: Datatype, declared: int | None) -> None:
    expected = size_bytes(datatype, entry.shape)
    if datatype is not Datatype.BYTES and declared != expected:
        raise RequestError(
            f"input {entry.name!r} declares {declared} bytes of binary data, "
            f"{described(datatype, entry.shape)} takes {expected}"
        )


def checked_elements(tensor: Tensor) -> Tensor:
    """Return a tensor whose data are sound; of most datatypes all are.

    Raises:
        RequestError: a BOOL that is neither 0 nor 1, or BYTES that are no elements.
    """
    if tensor.datatype is Datatype.BOOL and bytes(tensor.data).translate(None, b"\0\1"):
        raise RequestError(f"input {tensor.name!r} is BOOL and has bytes other than 0 and 1")
    if tensor.datatype is Datatype.BYTES:
        count = math.prod(tensor.shape)
        if count > MAX_ELEMENTS:
            raise RequestError(
                f"input {tensor.name!r} has {count} elements, at most {MAX_ELEMENTS} are read"
            )
        try:
            bytes_tensor.unpack(tensor.data, count)
        except ProtocolError as error:
            raise RequestError(f"input {tensor.name!r} is no BYTES tensor: {error}") from error
    return tensor

"""Bytes to inference requests and answers to bytes: V2 JSON and the binary tensor data extension.

Pure: no I/O, no model. Whether the tensors are what a model takes is the data plane's question.
Tensors in shared memory are named here and fetched in `edge_agent.inference.shared_memory`.
"""

import functools
import math
from collections.abc import Sequence

import msgspec

from edge_agent.inference import json_data, v2_messages
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_request import InferenceRequest, checked_elements
from edge_agent.inference.request_meaning import Meaning, understand
from edge_agent.inference.tensors import Data, Tensor, described, size_bytes
from fleet_protocol import bytes_tensor
from fleet_protocol.manifest import Datatype, TensorSpec

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Reading JSON holds the interpreter, so everybody else waits: more data than this comes binary."""

_MAX_REMEMBERED_BYTES = 2048
_REMEMBERED = 64
"""Messages that are understood without reading them again, and how long one may be."""

_REQUEST = msgspec.json.Decoder(v2_messages.Request)
_ENCODER = msgspec.json.Encoder()


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
    text = view[:header_length]
    if header_length <= _MAX_REMEMBERED_BYTES:
        meaning = _remembered(bytes(text), shared_memory)
    else:
        meaning = understand(_decode_json(text), shared_memory=shared_memory)
    return meaning.request(_segments(meaning.binary_sizes, view[header_length:]))


def read_message(
    message: v2_messages.Request, segments: Sequence[Data], *, shared_memory: bool = False
) -> InferenceRequest:
    """Read a request whose message has been decoded, whatever protocol carried it.

    Args:
        message: the request.
        segments: the binary data of each input, empty for one that has none.
        shared_memory: whether tensors may lie in shared memory.

    Raises:
        RequestError: it is not one that could be run; the message says where and why.
    """
    return understand(message, shared_memory=shared_memory).request(segments)


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
    for tensor in request.wanted(outputs):
        # One in shared memory has neither parameters nor data: Triton's clients take parameters
        # for the announcement of binary data.
        shared = tensor.name in request.shared_outputs
        binary = not shared and request.as_binary(tensor.name)
        if binary:
            parts.append(tensor.data)
        described_outputs.append(
            v2_messages.Output(
                name=tensor.name,
                datatype=tensor.datatype,
                shape=tensor.shape,
                parameters=v2_messages.BinarySize(len(tensor.data)) if binary else None,
                data=None if binary or shared else json_data.to_values(tensor),
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


@functools.lru_cache(_REMEMBERED)
def _remembered(text: bytes, shared_memory: bool) -> Meaning:  # noqa: FBT001 (a key is positional)
    return understand(_decode_json(text), shared_memory=shared_memory)


def _decode_json(text: bytes | memoryview) -> v2_messages.Request:
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


def _segments(sizes: Sequence[int], binary: memoryview) -> list[memoryview]:
    segments: list[memoryview] = []
    offset = 0
    for size in sizes:
        segments.append(binary[offset : offset + size])
        offset += size
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

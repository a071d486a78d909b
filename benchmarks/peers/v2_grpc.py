"""Calls by Open Inference Protocol V2 over gRPC with raw tensors.

The two messages are written and read by hand after the wire format of protocol buffers, so that
this client is as thin as the others and needs no generated code of one server or another.
"""

from collections.abc import Iterator
from typing import Protocol, cast

import grpc
import numpy as np

from benchmarks.models.bench_models import Array, BenchModel

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_MODEL_NAME, _INPUTS, _RAW_INPUTS = 1, 5, 7
_TENSOR_NAME, _TENSOR_DATATYPE, _TENSOR_SHAPE = 1, 2, 3
_RAW_OUTPUTS = 6
_BYTES = 2
"""Wire type of everything length-delimited."""
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class GrpcAnswerError(Exception):
    """The answer holds no raw output."""


class _Call(Protocol):
    def __call__(self, request: bytes, *, timeout: float) -> bytes: ...


class _Channel(Protocol):
    def unary_unary(self, method: str) -> _Call: ...

    def close(self) -> None: ...


class V2Grpc:
    """A channel for one model.

    ``packed`` sends the tensor as one element of datatype BYTES, for a server that would otherwise
    turn every number into a Python object.
    """

    def __init__(self, port: int, model: BenchModel, *, packed: bool = False) -> None:
        """Open a channel to a loopback port."""
        datatype, shape = ("BYTES", [1]) if packed else (model.input.datatype, model.input.shape)
        described = (
            _field(_TENSOR_NAME, model.input.name.encode())
            + _field(_TENSOR_DATATYPE, datatype.encode())
            + _field(_TENSOR_SHAPE, b"".join(_varint(size) for size in shape))
        )
        size = model.sample.nbytes
        prefix = size.to_bytes(4, "little") if packed else b""
        self._start = (
            _field(_MODEL_NAME, model.name.encode())
            + _field(_INPUTS, described)
            + _key(_RAW_INPUTS)
            + _varint(size + len(prefix))
            + prefix
        )
        self._prefix_length = len(prefix)
        self._shape = model.output.shape
        self._channel = _open(port)
        self._infer = self._channel.unary_unary(_METHOD)

    def call(self, tensor: Array) -> Array:
        """Return the model's output.

        Raises:
            GrpcAnswerError: the answer holds no raw output.
        """
        message = b"".join((self._start, tensor.data.cast("B")))
        answer = self._infer(message, timeout=60.0)
        for number, value in _fields(memoryview(answer)):
            if number == _RAW_OUTPUTS:
                values = np.frombuffer(value[self._prefix_length :], np.float32)
                return values.reshape(self._shape)
        raise GrpcAnswerError("the answer holds no raw output")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _open(port: int) -> _Channel:
    limits = [(f"grpc.max_{way}_message_length", _MAX_MESSAGE_BYTES) for way in ("send", "receive")]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", limits)
    grpc.channel_ready_future(channel).result(timeout=30.0)
    return cast("_Channel", channel)


def _key(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _field(number: int, value: bytes) -> bytes:
    return _key(number) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits to a byte
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of each length-delimited field of a message that has no others."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        size, at = _read_varint(message, at)
        if key & 7 != _BYTES:
            raise GrpcAnswerError(f"the answer has a field of wire type {key & 7}")
        yield key >> 3, message[at : at + size]
        at += size


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 0x7F) << shift
        shift += 7
        at += 1
        if message[at - 1] < 0x80:  # noqa: PLR2004 - the last byte of a varint has no high bit
            return value, at

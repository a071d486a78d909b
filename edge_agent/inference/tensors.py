"""A tensor as it travels through the runtime: named bytes with a datatype and a shape.

The bytes are little-endian and row-major, as the binary tensor data extension has them. Nothing
here knows numpy; `edge_agent.inference.backends.arrays` converts at the edge.
"""

import math
import struct
from collections.abc import Sequence

import msgspec

from fleet_protocol.bytes_tensor import LENGTH_BYTES
from fleet_protocol.manifest import ITEM_BYTES, Datatype

Data = bytes | bytearray | memoryview
"""Contiguous bytes; a memoryview has format ``B``."""


_D = Datatype
_STRUCT_CODES: dict[Datatype, str] = {
    _D.BOOL: "?",
    _D.UINT8: "B",
    _D.UINT16: "H",
    _D.UINT32: "I",
    _D.UINT64: "Q",
    _D.INT8: "b",
    _D.INT16: "h",
    _D.INT32: "i",
    _D.INT64: "q",
    _D.FP16: "e",
    _D.FP32: "f",
    _D.FP64: "d",
}


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """A concrete tensor.

    Attributes:
        data: ``size_bytes(datatype, shape)`` bytes, which nobody changes while the tensor lives;
            of BYTES at least so many, in the form of `fleet_protocol.bytes_tensor`.
    """

    name: str
    datatype: Datatype
    shape: list[int]
    data: Data


def size_bytes(datatype: Datatype, shape: Sequence[int]) -> int:
    """Return how many bytes a tensor takes.

    For BYTES it is the least: so many zeros are so many empty elements.
    """
    if datatype is Datatype.BYTES:
        return math.prod(shape) * LENGTH_BYTES
    return math.prod(shape) * ITEM_BYTES[datatype]


def packed(datatype: Datatype, values: Sequence[object]) -> bytes:
    """Return values as the data of a tensor; not for BYTES.

    Raises:
        struct.error: one is none of the datatype, or out of its range.
        OverflowError: likewise, for a float.
    """
    return struct.pack(f"<{len(values)}{_STRUCT_CODES[datatype]}", *values)


def unpacked(tensor: Tensor) -> tuple[float, ...]:
    """Return the values of a tensor, flat; not for BYTES."""
    return struct.unpack(f"<{math.prod(tensor.shape)}{_STRUCT_CODES[tensor.datatype]}", tensor.data)


def described(datatype: Datatype, shape: Sequence[int]) -> str:
    """Return datatype and shape for a message, such as ``FP32[1,28,28]``."""
    return f"{datatype}[{','.join(map(str, shape))}]"

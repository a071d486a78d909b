"""Tensors to numpy arrays and back, without copying; only strings have to be copied."""

import math

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import Tensor
from fleet_protocol import bytes_tensor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Datatype

_D = Datatype
DTYPES: dict[Datatype, np.dtype[np.generic]] = {
    _D.BOOL: np.dtype(np.bool_),
    _D.UINT8: np.dtype(np.uint8),
    _D.UINT16: np.dtype("<u2"),
    _D.UINT32: np.dtype("<u4"),
    _D.UINT64: np.dtype("<u8"),
    _D.INT8: np.dtype(np.int8),
    _D.INT16: np.dtype("<i2"),
    _D.INT32: np.dtype("<i4"),
    _D.INT64: np.dtype("<i8"),
    _D.FP16: np.dtype("<f2"),
    _D.FP32: np.dtype("<f4"),
    _D.FP64: np.dtype("<f8"),
}


def dtype_of(kind: type[np.generic]) -> np.dtype[np.generic]:
    """Return the dtype of a scalar type, as libraries name the types of their tensors."""
    return np.dtype(kind)


def to_array(tensor: Tensor) -> NDArray[np.generic]:
    """Return the tensor as an array over the same memory.

    Raises:
        RequestError: a BYTES tensor holds something that is not UTF-8, as libraries want it.
    """
    if tensor.datatype is _D.BYTES:
        return _strings(tensor)
    return np.frombuffer(tensor.data, DTYPES[tensor.datatype]).reshape(tensor.shape)


def to_tensor(name: str, datatype: Datatype, array: NDArray[np.generic]) -> Tensor:
    """Return an array as a tensor over the same memory.

    Args:
        name: of the tensor.
        datatype: the array's, which the caller has checked when the model was loaded.
        array: copied only if it is not row-major.
    """
    if datatype is _D.BYTES:
        packed = bytes_tensor.pack(str(text).encode() for text in array.ravel().tolist())
        return Tensor(name=name, datatype=datatype, shape=list(array.shape), data=packed)
    # A memoryview with a zero in its shape cannot be cast.
    data = np.ascontiguousarray(array).data.cast("B") if array.size else b""
    return Tensor(name=name, datatype=datatype, shape=list(array.shape), data=data)


def winners(tensor: Tensor) -> list[int]:
    """Return the index of the largest value along the last axis, one for each item.

    Strings have no largest, so there is none.
    """
    if tensor.datatype is _D.BYTES:
        return []
    indices: list[int] = np.argmax(to_array(tensor), axis=-1).ravel().tolist()
    return indices


def within(one: Tensor, other: Tensor, max_abs_error: float) -> bool:
    """Say whether two tensors of one type and shape differ nowhere by more than a bound."""
    ours, theirs = (to_array(tensor).astype(np.float64) for tensor in (one, other))
    return bool(np.allclose(ours, theirs, rtol=0.0, atol=max_abs_error, equal_nan=True))


def _strings(tensor: Tensor) -> NDArray[np.generic]:
    try:
        elements = bytes_tensor.unpack(tensor.data, math.prod(tensor.shape))
        texts = [element.decode() for element in elements]
    except (ProtocolError, UnicodeDecodeError) as error:
        raise RequestError(f"{tensor.name!r} is not a tensor of UTF-8 strings: {error}") from error
    array: NDArray[np.generic] = np.array(texts, dtype=object).reshape(tensor.shape)
    return array

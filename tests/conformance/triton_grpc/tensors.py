"""Tensors as Triton's gRPC client sends and returns them."""

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype

Array = NDArray[np.generic]


def sample(datatype: Datatype, rows: int = 3) -> Array:
    """Return values of every kind that a datatype has."""
    if datatype is Datatype.BYTES:
        texts = [b"", b"a", "é漢".encode(), b"x" * 300] * rows
        return np.array(texts, dtype=np.object_).reshape(rows, 4)
    values = np.arange(4 * rows).reshape(rows, 4)
    scaled = values % 2 if datatype is Datatype.BOOL else values * 1.25
    array: Array = scaled.astype(triton_to_np_dtype(datatype.value))
    return array


def given(name: str, array: Array, datatype: Datatype) -> triton.InferInput:
    """Return an input."""
    return triton.InferInput(name, list(array.shape), datatype.value).set_data_from_numpy(array)


def image(tensor: Tensor) -> triton.InferInput:
    """Return an input of the reference model."""
    values = np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)
    return given(tensor.name, values, Datatype.FP32)


def same(found: Array | None, sent: Array) -> bool:
    """Say whether an answer is what was sent."""
    assert found is not None
    if sent.dtype == np.object_:
        return found.shape == sent.shape and found.ravel().tolist() == sent.ravel().tolist()
    return found.dtype == sent.dtype and np.array_equal(found, sent)

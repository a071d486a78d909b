"""The typed ``contents`` of a tensor to bytes and back; FP16 has no field and travels raw."""

import math
import struct
from collections.abc import Sequence

from edge_agent.inference.errors import RequestError
from edge_agent.inference.grpc_api.wire.open_inference_pb2 import InferTensorContents
from edge_agent.inference.json_data import MAX_VALUES
from edge_agent.inference.tensors import Tensor, described, packed, unpacked
from fleet_protocol import bytes_tensor
from fleet_protocol.manifest import Datatype

_D = Datatype
_FIELDS: dict[Datatype, str] = {
    _D.BOOL: "bool_contents",
    _D.INT8: "int_contents",
    _D.INT16: "int_contents",
    _D.INT32: "int_contents",
    _D.INT64: "int64_contents",
    _D.UINT8: "uint_contents",
    _D.UINT16: "uint_contents",
    _D.UINT32: "uint_contents",
    _D.UINT64: "uint64_contents",
    _D.FP32: "fp32_contents",
    _D.FP64: "fp64_contents",
    _D.BYTES: "bytes_contents",
}


def to_bytes(
    contents: InferTensorContents, *, name: str, datatype: Datatype, shape: Sequence[int]
) -> bytes:
    """Read the values of an input.

    Raises:
        RequestError: they are not in the field of the datatype, out of its range, too many, or
            not as many as the shape says.
    """
    field = _field(datatype, f"input {name!r}")
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    if any(other != field for other in filled):
        raise RequestError(
            f"input {name!r} is {datatype}: its values go into {field}, not {', '.join(filled)}"
        )
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise RequestError(
            f"input {name!r} has {len(values)} values in {field}, {described(datatype, shape)} "
            f"takes {count}"
        )
    _check_count(count, f"input {name!r}")
    if datatype is Datatype.BYTES:
        return bytes_tensor.pack(values)
    try:
        return packed(datatype, values)
    except struct.error:
        raise RequestError(
            f"input {name!r} holds a number outside the range of {datatype}"
        ) from None


def of_tensor(tensor: Tensor) -> InferTensorContents:
    """Return the values of an output.

    Raises:
        RequestError: there are too many, or the datatype has no field.
    """
    what = f"output {tensor.name!r}"
    field = _field(tensor.datatype, what)
    count = math.prod(tensor.shape)
    _check_count(count, what)
    contents = InferTensorContents()
    values = (
        bytes_tensor.unpack(tensor.data, count)
        if tensor.datatype is Datatype.BYTES
        else unpacked(tensor)
    )
    getattr(contents, field).extend(values)
    return contents


def _field(datatype: Datatype, what: str) -> str:
    if datatype not in _FIELDS:
        raise RequestError(f"{what} is {datatype}, which travels as raw contents only")
    return _FIELDS[datatype]


def _check_count(count: int, what: str) -> None:
    if count > MAX_VALUES:
        raise RequestError(
            f"{what} has {count} values, at most {MAX_VALUES} travel as typed contents: "
            "use raw contents"
        )

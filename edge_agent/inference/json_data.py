"""The ``data`` field of a V2 tensor in JSON, to bytes and back.

The values may be flat in row-major order or nested as the shape says. They are read as the
datatype asks (a float is no integer, a bool no number) and must lie in its range. The elements of
BYTES are strings, which travel as UTF-8. FP16 has no form in JSON, as with Triton.
"""

import functools
import math
import re
import struct
from collections.abc import Sequence
from itertools import chain
from types import GenericAlias
from typing import cast

import msgspec

from edge_agent.inference.errors import BackendError, RequestError
from edge_agent.inference.tensors import Data, Tensor, described, packed, unpacked
from fleet_protocol import bytes_tensor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Datatype

_D = Datatype
_FLOATS = frozenset({_D.FP32, _D.FP64})
MAX_VALUES = 1 << 18
"""Of one output as JSON: writing more would keep everybody else waiting."""

_OPENING = re.compile(rb"(?:\[[ \t\r\n]*){1,9}")


def to_bytes(raw: Data, *, name: str, datatype: Datatype, shape: Sequence[int]) -> bytes:
    """Read the JSON text of a ``data`` field.

    Raises:
        RequestError: not a list, nested otherwise than the shape, a value of another type or out
            of the datatype's range, too many or too few of them, or FP16.
    """
    if datatype is _D.FP16:
        raise RequestError(
            f"input {name!r}: FP16 does not travel as JSON; send it as binary data "
            "(binary_data_size)"
        )
    opening = _OPENING.match(raw)
    depth = opening.group().count(b"[") if opening else 0
    # Below an empty dimension there is nothing to nest.
    full_depth = shape.index(0) + 1 if 0 in shape else len(shape)
    if depth not in (1, full_depth):
        raise RequestError(
            f"the data of input {name!r} must be one flat list or lists nested {full_depth} deep "
            f"for {described(datatype, shape)}"
        )
    try:
        values = _decoder(datatype, depth).decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the data of input {name!r} is not {datatype}: {error}") from error
    flat = _flattened(values, [math.prod(shape)] if depth == 1 else shape[:depth])
    if flat is None:
        raise RequestError(
            f"the data of input {name!r} does not have the {math.prod(shape)} values, nested "
            f"as the shape says or flat, of {described(datatype, shape)}"
        )
    if datatype is _D.BYTES:
        return bytes_tensor.pack(map(str.encode, cast("list[str]", flat)))
    try:
        return packed(datatype, flat)
    except (struct.error, OverflowError):
        raise RequestError(
            f"the data of input {name!r} holds a number outside the range of {datatype}"
        ) from None


def to_values(tensor: Tensor) -> tuple[object, ...]:
    """Return the values of a tensor, flat, for JSON.

    Raises:
        RequestError: there are too many, they are FP16, or one is infinite, not a number or not
            UTF-8, which JSON cannot carry.
    """
    if tensor.datatype is _D.FP16:
        raise _not_for_json(tensor, "is FP16, which does not travel as JSON")
    count = math.prod(tensor.shape)
    if count > MAX_VALUES:
        raise _not_for_json(tensor, f"has {count} values, at most {MAX_VALUES} are sent as JSON")
    if tensor.datatype is _D.BYTES:
        return _texts(tensor, count)
    values = unpacked(tensor)
    if tensor.datatype in _FLOATS and not all(map(math.isfinite, values)):
        raise _not_for_json(tensor, "holds infinities or NaN, which JSON cannot carry")
    return values


def _texts(tensor: Tensor, count: int) -> tuple[object, ...]:
    try:
        return tuple(element.decode() for element in bytes_tensor.unpack(tensor.data, count))
    except UnicodeDecodeError:
        raise _not_for_json(tensor, "holds bytes that are not UTF-8") from None
    except ProtocolError as error:
        raise BackendError(f"output {tensor.name!r} is no BYTES tensor: {error}") from error


def _not_for_json(tensor: Tensor, why: str) -> RequestError:
    return RequestError(
        f'output {tensor.name!r} {why}: ask for it as binary data ("binary_data": true)'
    )


@functools.cache
def _decoder(datatype: Datatype, depth: int) -> msgspec.json.Decoder[list[object]]:
    nested: object = int
    if datatype in _FLOATS:
        nested = float
    elif datatype is Datatype.BOOL:
        nested = bool
    elif datatype is Datatype.BYTES:
        nested = str
    for _ in range(depth):
        nested = GenericAlias(list, (nested,))
    return msgspec.json.Decoder(cast("type[list[object]]", nested))


def _flattened(values: list[object], shape: Sequence[int]) -> list[object] | None:
    rows: list[object] = [values]
    for size in shape:
        if any(len(row) != size for row in rows):  # type: ignore[arg-type] # rows are lists here
            return None
        rows = list(chain.from_iterable(rows))  # type: ignore[arg-type]
    return rows

"""The Open Inference Protocol V2 with the binary tensor extension, as a client, without numpy.

Only what the golden check needs: encode a request whose tensors are raw bytes, decode an answer
into raw bytes and those into numbers. Little-endian, row-major, as the protocol says.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import ITEM_BYTES, Datatype, GoldenTensor

HEADER_LENGTH = "Inference-Header-Content-Length"

_ARRAY_CODES = {
    Datatype.BOOL: "B",
    Datatype.UINT8: "B",
    Datatype.INT8: "b",
    Datatype.UINT16: "H",
    Datatype.INT16: "h",
    Datatype.UINT32: "I",
    Datatype.INT32: "i",
    Datatype.UINT64: "Q",
    Datatype.INT64: "q",
    Datatype.FP32: "f",
    Datatype.FP64: "d",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An output as it came: raw bytes with their description."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: bytes


class _OutputParameters(msgspec.Struct):
    binary_data_size: int


class _Output(msgspec.Struct):
    name: str
    datatype: Datatype
    shape: list[int]
    parameters: _OutputParameters


class _Answer(msgspec.Struct):
    outputs: list[_Output]


def encode_request(
    inputs: Sequence[GoldenTensor], outputs: Sequence[str]
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an inference request that asks for binary outputs.

    Raises:
        ProtocolError: an input's data does not fit its description.
    """
    data = [tensor.data() for tensor in inputs]
    header = msgspec.json.encode(
        {
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": tensor.shape,
                    "parameters": {"binary_data_size": len(raw)},
                }
                for tensor, raw in zip(inputs, data, strict=True)
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
        }
    )
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return b"".join([header, *data]), headers


def decode_answer(body: bytes, header_length: str | None) -> dict[str, Tensor]:
    """Return the outputs of an answer by name.

    Raises:
        ProtocolError: the answer is not V2 with binary tensors, or is cut short.
    """
    try:
        split = int(header_length or "")
        answer = msgspec.json.decode(body[:split], type=_Answer)
    except (ValueError, msgspec.DecodeError) as error:
        raise ProtocolError(f"the answer is not V2 with binary tensors: {error}") from error
    tensors: dict[str, Tensor] = {}
    at = split
    for output in answer.outputs:
        size = output.parameters.binary_data_size
        data = body[at : at + size] if size >= 0 else b""
        at += size
        tensors[output.name] = Tensor(output.name, output.datatype, output.shape, data)
        if len(data) != size or size % ITEM_BYTES.get(output.datatype, 1):
            raise ProtocolError(f"output {output.name!r} has {len(data)} bytes, said were {size}")
    return tensors


def numbers(datatype: Datatype, data: bytes) -> Sequence[float]:
    """Return the elements of little-endian raw data of a numeric datatype, row-major."""
    if datatype is Datatype.FP16:
        return struct.unpack(f"<{len(data) // 2}e", data)
    values = array(_ARRAY_CODES[datatype], data)
    if sys.byteorder == "big":
        values.byteswap()
    return values

"""The client's half of the V2 codec, written anew so that the runtime's half is held against it."""

import json
import struct
from collections.abc import Mapping, Sequence

from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype

_D = Datatype
STRUCT_CODES = {
    _D.BOOL: "?", _D.UINT8: "B", _D.UINT16: "H", _D.UINT32: "I", _D.UINT64: "Q", _D.INT8: "b",
    _D.INT16: "h", _D.INT32: "i", _D.INT64: "q", _D.FP16: "e", _D.FP32: "f", _D.FP64: "d",
}  # fmt: skip


def values_of(tensor: Tensor) -> list[object]:
    """Return the tensor's values, flat; the elements of BYTES must be UTF-8."""
    if tensor.datatype is _D.BYTES:
        return [element.decode() for element in elements_of(bytes(tensor.data))]
    code = STRUCT_CODES[tensor.datatype]
    return [value for (value,) in struct.iter_unpack(f"<{code}", tensor.data)]


def elements_of(data: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor."""
    elements = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        elements.append(data[4 : 4 + size])
        data = data[4 + size :]
    return elements


def bytes_data(elements: Sequence[bytes]) -> bytes:
    """Return elements as the data of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def nested(values: Sequence[object], shape: Sequence[int]) -> object:
    """Return flat values as lists in lists."""
    if len(shape) <= 1:
        return list(values)
    step = len(values) // shape[0] if shape[0] else 0
    return [nested(values[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]


def encode(
    inputs: Sequence[Tensor],
    *,
    binary: Sequence[bool],
    fields: Mapping[str, object] | None = None,
    nest: bool = False,
) -> tuple[bytes, int | None]:
    """Return body and ``Inference-Header-Content-Length`` of a request."""
    entries: list[dict[str, object]] = []
    data: list[bytes] = []
    for tensor, as_binary in zip(inputs, binary, strict=True):
        entry: dict[str, object] = {
            "name": tensor.name,
            "datatype": tensor.datatype.value,
            "shape": tensor.shape,
        }
        if as_binary:
            entry["parameters"] = {"binary_data_size": len(tensor.data)}
            data.append(bytes(tensor.data))
        else:
            values = values_of(tensor)
            entry["data"] = nested(values, tensor.shape) if nest else values
        entries.append(entry)
    header = json.dumps({**(fields or {}), "inputs": entries}).encode()
    return header + b"".join(data), len(header) if data else None


def decode(body: bytes, header_length: int | None) -> tuple[dict[str, object], dict[str, bytes]]:
    """Return the JSON of an answer and the bytes of its outputs."""
    split = len(body) if header_length is None else header_length
    answer = json.loads(body[:split])
    at = split
    outputs: dict[str, bytes] = {}
    for output in answer["outputs"]:
        if "data" in output and output["datatype"] == "BYTES":
            outputs[output["name"]] = bytes_data([text.encode() for text in output["data"]])
        elif "data" in output:
            code = STRUCT_CODES[Datatype(output["datatype"])]
            outputs[output["name"]] = struct.pack(f"<{len(output['data'])}{code}", *output["data"])
        else:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]] = body[at : at + size]
            at += size
    assert at == len(body)
    return answer, outputs


def entry(**changes: object) -> dict[str, object]:
    """Return the description of an input; what is None is left out."""
    made = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5], **changes}
    return {key: value for key, value in made.items() if value is not None}


def binary_entry(size: object, **changes: object) -> dict[str, object]:
    """Return the description of an input whose bytes follow the JSON."""
    return entry(data=None, parameters={"binary_data_size": size}, **changes)


def bytes_entry(size: int, **changes: object) -> dict[str, object]:
    """Return the description of an input of BYTES that follow the JSON."""
    return binary_entry(size, **{"datatype": "BYTES", **changes})


def unchanged(found: Tensor, sent: Tensor) -> bool:
    """Say whether a tensor came through as it was sent."""
    return (found.name, found.datatype, found.shape, bytes(found.data)) == (
        sent.name,
        sent.datatype,
        sent.shape,
        sent.data,
    )

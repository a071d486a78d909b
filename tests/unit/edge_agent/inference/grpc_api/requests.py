"""Requests and answers as Triton's own message classes have them, which are not ours."""

import struct
from collections.abc import Sequence

from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from edge_agent.inference.tensors import Tensor, size_bytes
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference import v2_request

_D = Datatype
FIELDS = {
    _D.BOOL: "bool_contents", _D.INT8: "int_contents", _D.INT16: "int_contents",
    _D.INT32: "int_contents", _D.INT64: "int64_contents", _D.UINT8: "uint_contents",
    _D.UINT16: "uint_contents", _D.UINT32: "uint_contents", _D.UINT64: "uint64_contents",
    _D.FP32: "fp32_contents", _D.FP64: "fp64_contents", _D.BYTES: "bytes_contents",
}  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn, *, typed: bool) -> Tensor:
    """Return a tensor; FP16 has no typed contents."""
    known = FIELDS if typed else Datatype
    datatype = draw(st.sampled_from(sorted(known)))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    if datatype is Datatype.BYTES:
        count = size_bytes(Datatype.UINT8, shape)
        elements = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        data = v2_request.bytes_data(elements)
    else:
        size = size_bytes(datatype, shape)
        data = draw(st.binary(min_size=size, max_size=size))
        if datatype is Datatype.BOOL:
            data = bytes(byte & 1 for byte in data)
    return Tensor(name="x", datatype=datatype, shape=shape, data=data)


def named(found: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors under different names."""
    return [
        Tensor(name=f"x{at}", datatype=one.datatype, shape=one.shape, data=one.data)
        for at, one in enumerate(found)
    ]


def request(inputs: Sequence[Tensor], *, typed: bool = False) -> wire.ModelInferRequest:
    """Return a request as a client makes it."""
    # Their messages have no types; ours describe the same fields.
    message: wire.ModelInferRequest = service_pb2.ModelInferRequest(model_name="m", id="7")
    for tensor in inputs:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if typed:
            getattr(entry.contents, FIELDS[tensor.datatype]).extend(values(tensor))
        else:
            message.raw_input_contents.append(bytes(tensor.data))
    return message


def values(tensor: Tensor) -> list[object]:
    """Return the values of a tensor as typed contents have them."""
    if tensor.datatype is Datatype.BYTES:
        return list(v2_request.elements_of(bytes(tensor.data)))
    code = v2_request.STRUCT_CODES[tensor.datatype]
    return [value for (value,) in struct.iter_unpack(f"<{code}", tensor.data)]


def outputs(answer: bytes) -> tuple[wire.ModelInferResponse, list[bytes]]:
    """Return an answer with the bytes of each output, however they came."""
    message: wire.ModelInferResponse = service_pb2.ModelInferResponse.FromString(answer)
    data = []
    for at, output in enumerate(message.outputs):
        datatype = Datatype(output.datatype)
        if output.HasField("contents"):
            found = list(getattr(output.contents, FIELDS[datatype]))
            data.append(
                v2_request.bytes_data(found)
                if datatype is Datatype.BYTES
                else struct.pack(f"<{len(found)}{v2_request.STRUCT_CODES[datatype]}", *found)
            )
        else:
            raw = message.raw_output_contents
            data.append(raw[at] if raw else b"")
    return message, data

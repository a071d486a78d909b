"""What tests of the V2 protocol draw: tensors, and JSON that is no tensor."""

import math
import struct

from hypothesis import strategies as st

from edge_agent.inference.tensors import Tensor, size_bytes
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference import v2_request

NAMES = st.text("abcxyz_0", min_size=1, max_size=8)
SHAPES = st.lists(st.integers(0, 4), max_size=4)
TEXTS = st.text(max_size=9)
# Hypothesis makes its table of all characters with the first text, which takes more than a second:
# within an example, that would count as slow generation.
TEXTS.validate()


@st.composite
def tensors(draw: st.DrawFn, *, finite: bool) -> Tensor:
    """Draw a tensor; a finite one can travel as JSON."""
    known = [datatype for datatype in Datatype if not finite or datatype is not Datatype.FP16]
    datatype = draw(st.sampled_from(known))
    shape = draw(SHAPES)
    if datatype is Datatype.BYTES:
        count = math.prod(shape)
        element = TEXTS.map(str.encode) if finite else st.binary(max_size=9)
        data = v2_request.bytes_data(draw(st.lists(element, min_size=count, max_size=count)))
        return Tensor(name=draw(NAMES), datatype=datatype, shape=shape, data=data)
    size = size_bytes(datatype, shape)
    data = draw(st.binary(min_size=size, max_size=size))
    if datatype is Datatype.BOOL:
        data = bytes(byte & 1 for byte in data)
    if finite and datatype in (Datatype.FP32, Datatype.FP64):
        code = v2_request.STRUCT_CODES[datatype]
        numbers = [number for (number,) in struct.iter_unpack(f"<{code}", data)]
        data = struct.pack(
            f"<{len(numbers)}{code}", *(n if math.isfinite(n) else 0.5 for n in numbers)
        )
    return Tensor(name=draw(NAMES), datatype=datatype, shape=shape, data=data)


def some(finite: bool) -> st.SearchStrategy[list[Tensor]]:  # noqa: FBT001
    """Draw tensors of different names."""
    return st.lists(
        tensors(finite=finite), min_size=1, max_size=4, unique_by=lambda tensor: tensor.name
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)

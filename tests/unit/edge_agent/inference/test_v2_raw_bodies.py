"""Bodies without a description: the bytes of the only input."""

import pytest

from edge_agent.inference import v2_codec
from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.v2_request import unchanged


def spec(*shape: int, datatype: Datatype = Datatype.FP32) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=list(shape))


@pytest.mark.parametrize(
    ("declared", "size", "shape"),
    [
        (spec(2, 3), 24, [2, 3]),
        (spec(-1, 3), 12, [1, 3]),
        (spec(-1, 3), 36, [3, 3]),
        (spec(2, -1), 24, [2, 3]),
        (spec(-1, -1, 3), 24, [1, 2, 3]),
        (spec(), 4, []),
        (spec(-1, datatype=Datatype.UINT8), 5, [5]),
    ],
)
def test_raw_bodies_are_the_only_input(declared: TensorSpec, size: int, shape: list[int]) -> None:
    body = bytes(range(size))
    request = v2_codec.decode_raw(body, [declared])
    expected = Tensor(name="x", datatype=declared.datatype, shape=shape, data=body)
    assert unchanged(request.inputs[0], expected)
    assert (request.outputs, request.binary_output) == (None, True)


@pytest.mark.parametrize("shape", [[1], [-1], [1, 1], [-1, 1], [-1, -1]])
def test_a_raw_body_of_bytes_is_one_element(shape: list[int]) -> None:
    request = v2_codec.decode_raw(b"a\xff", [spec(*shape, datatype=Datatype.BYTES)])
    (tensor,) = request.inputs
    assert (tensor.shape, v2_request.elements_of(bytes(tensor.data))) == (
        [1] * len(shape),
        [b"a\xff"],
    )


@pytest.mark.parametrize(
    ("inputs", "body", "complaint"),
    [
        ([spec(1), spec(1)], b"1234", "the model takes 2 inputs"),
        ([spec(2)], b"1234", r"does not say which shape of FP32\[2\]"),
        ([spec(-1, 3)], b"1234", "does not say which shape"),
        ([spec(-1, 3)], b"123", "does not say which shape"),
        ([spec(2, -1, -1)], bytes(24), "does not say which shape"),
        ([spec(-1, -1, -1)], bytes(24), "does not say which shape"),
        ([spec(-1, 0)], bytes(24), "does not say which shape"),
        ([spec(2, datatype=Datatype.BYTES)], b"a", r"does not say which shape of BYTES\[2\]"),
        ([spec(2, datatype=Datatype.BOOL)], b"\1\2", "BOOL and has bytes other than 0 and 1"),
    ],
)
def test_raw_bodies_that_do_not_fit_are_refused(
    inputs: list[TensorSpec], body: bytes, complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        v2_codec.decode_raw(body, inputs)

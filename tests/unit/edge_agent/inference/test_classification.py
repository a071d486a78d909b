"""The highest classes of an output: which ones, how they are written, and what cannot be ranked."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.classification import MAX_VALUES, ranked
from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.unit.edge_agent.inference import v2_request


def output(shape: list[int], values: list[float], datatype: Datatype = Datatype.FP32) -> Tensor:
    code = v2_request.STRUCT_CODES[datatype]
    return Tensor(
        name="y",
        datatype=datatype,
        shape=shape,
        data=struct.pack(f"<{len(values)}{code}", *values),
    )


def spec(shape: list[int], labels: list[str] | None = None) -> TensorSpec:
    return TensorSpec(name="y", datatype=Datatype.FP32, shape=shape, labels=labels or [])


@pytest.mark.parametrize(
    ("tensor", "declared", "count", "shape", "elements"),
    [
        # The example of the extension's documentation.
        (
            output([4], [1, 5, 10, 4], Datatype.INT32),
            spec([4]),
            2,
            [2],
            ["10:2", "5:1"],
        ),
        (
            output([4], [1, 5, 10, 4], Datatype.INT32),
            spec([4], ["pear", "pickle", "apple", "plum"]),
            2,
            [2],
            ["10:2:apple", "5:1:pickle"],
        ),
        (
            output([2, 2], [1, 2, 4, 3]),
            spec([-1, 2]),
            1,
            [2, 1],
            ["2.000000:1", "4.000000:0"],
        ),
        (output([2, 2], [1, 2, 4, 3]), spec([2, 2]), 1, [1], ["4.000000:2"]),
        (
            output([1, 2], [1, 2]),
            spec([-1, 2], ["only one"]),
            9,
            [1, 2],
            ["2.000000:1", "1.000000:0"],
        ),
        (output([3], [7, 7, 7], Datatype.UINT8), spec([3]), 2, [2], ["7:0", "7:1"]),
        (
            output([3], [float("nan"), -1, float("inf")], Datatype.FP16),
            spec([3]),
            3,
            [3],
            ["inf:2", "-1.000000:1", "nan:0"],
        ),
        (output([], [3]), spec([]), 1, [1], ["3.000000:0"]),
    ],
)
def test_the_highest_come_first(
    tensor: Tensor, declared: TensorSpec, count: int, shape: list[int], elements: list[str]
) -> None:
    found = ranked(tensor, declared, count)
    assert (found.name, found.datatype, found.shape) == ("y", Datatype.BYTES, shape)
    assert v2_request.values_of(found) == elements


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=20), st.integers(1, 30))
def test_ranking_is_sorting(values: list[int], count: int) -> None:
    found = ranked(output([len(values)], list(values), Datatype.INT8), spec([len(values)]), count)
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    assert v2_request.values_of(found) == [f"{values[at]}:{at}" for at in order[:count]]


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(name="y", datatype=Datatype.BYTES, shape=[1], data=bytes(4)),
        Tensor(name="y", datatype=Datatype.BOOL, shape=[2], data=bytes(2)),
        Tensor(name="y", datatype=Datatype.FP32, shape=[0], data=b""),
        Tensor(
            name="y", datatype=Datatype.INT8, shape=[MAX_VALUES + 1], data=bytes(MAX_VALUES + 1)
        ),
    ],
)
def test_what_has_no_order_is_refused(tensor: Tensor) -> None:
    with pytest.raises(RequestError, match="cannot be given as classes"):
        ranked(tensor, spec([-1]), 1)

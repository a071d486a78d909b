"""What the V2 codec refuses, with a sentence that says why; nothing that comes in breaks it."""

import contextlib
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.inference import v2_codec
from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import size_bytes
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.drawn_tensors import JSON_VALUES, SHAPES
from tests.unit.edge_agent.inference.v2_request import binary_entry, bytes_entry, entry


@pytest.mark.parametrize(
    ("inputs", "tail", "complaint"),
    [
        ([], b"", r"length >= 1 - at `\$.inputs`"),
        ([entry(name="")], b"", "inputs"),
        ([entry(shape=[-2])], b"", ">= 0"),
        ([entry(shape=[2**31])], b"", "<= 2147483647"),
        ([entry(shape=[2**31 - 1] * 8)], b"", "does not have"),
        ([entry(shape=[1] * 9)], b"", "length <= 8"),
        ([entry(shape="2")], b"", "Expected `array`"),
        ([entry(shape=[2.0])], b"", "Expected `int`"),
        ([entry(datatype="BF16")], b"", "datatype 'BF16'; known are BOOL"),
        ([entry(datatype="BYTES")], b"", "is not BYTES: Expected `str`, got `int`"),
        ([entry(datatype="BYTES", data=["a", None])], b"", "is not BYTES: Expected `str`"),
        ([entry(datatype="BYTES", data=["a"])], b"", "does not have the 2 values"),
        ([entry(datatype="fp32")], b"", "datatype 'fp32'"),
        ([entry(data=[1])], b"", r"does not have the 2 values.*FP32\[2\]"),
        ([entry(data=[1, 2, 3])], b"", "does not have the 2 values"),
        ([entry(data=[[1, 2]])], b"", "does not have the 2 values|nested 1 deep"),
        ([entry(shape=[2, 2], data=[[1, 2], [3]])], b"", "does not have"),
        ([entry(shape=[2, 2], data=[[1, 2, 3, 4]])], b"", "does not have"),
        ([entry(shape=[1, 2, 1], data=[[1, 2]])], b"", "nested 3 deep"),
        ([entry(data="12")], b"", "flat list"),
        ([entry(data={"0": 1})], b"", "flat list"),
        ([entry(data=7)], b"", "flat list"),
        ([entry(data=["1", "2"])], b"", "is not FP32: Expected `float`"),
        ([entry(data=[1, True])], b"", "is not FP32: Expected `float`"),
        ([entry(data=[1, None])], b"", "is not FP32"),
        ([entry(data=[1, 1e39])], b"", "outside the range of FP32"),
        ([entry(datatype="FP16")], b"", "FP16 does not travel as JSON; send it as binary data"),
        ([entry(datatype="INT8", data=[1, 128])], b"", "outside the range of INT8"),
        ([entry(datatype="UINT64", data=[1, 2**64])], b"", "outside the range of UINT64"),
        ([entry(datatype="UINT8", data=[1, -1])], b"", "outside the range of UINT8"),
        ([entry(datatype="INT32", data=[1, 1.5])], b"", "is not INT32: Expected `int`"),
        ([entry(datatype="INT32", data=[1, True])], b"", "is not INT32: Expected `int`"),
        ([entry(datatype="BOOL", data=[True, 1])], b"", "is not BOOL: Expected `bool`"),
        ([entry(), entry()], b"", "'x' is given twice"),
        ([entry(data=None)], b"", "either data or binary_data_size"),
        ([entry(parameters={"binary_data_size": 8})], b"12345678", "either data or binary"),
        ([entry(parameters={"shared_memory_region": "r"})], b"", "shared memory is not enabled"),
        ([binary_entry(8)], b"1234567", "add up to 8 bytes, only 7 are left"),
        ([binary_entry(8)], b"123456789", "9 bytes follow the JSON.* add up to 8"),
        ([binary_entry(4)], b"1234", r"declares 4 bytes.*FP32\[2\] takes 8"),
        ([bytes_entry(8)], b"\0" * 9, "9 bytes follow the JSON"),
        ([bytes_entry(7)], b"\0" * 7, "7 bytes cannot hold 2 elements"),
        ([bytes_entry(9)], b"\0" * 9, "1 bytes follow the last of 2 elements"),
        ([bytes_entry(8)], b"\1" + b"\0" * 7, "element 1 of 2 has no length"),
        ([bytes_entry(8)], b"\xff" * 8, "element 0 of 2 is said to have 4294967295 bytes, 4 are"),
        ([bytes_entry(0, shape=[2**31 - 1] * 8)], b"", "at most 65536 are read"),
        ([binary_entry(-1)], b"", ">= 0"),
        ([binary_entry(2**63)], b"", "<= 1099511627776"),
        ([binary_entry("8")], b"12345678", "Expected `int"),
        ([binary_entry(2, datatype="BOOL")], b"\1\2", "bytes other than 0 and 1"),
        ([binary_entry(0, shape=[2**31 - 1, 2**31 - 1, 0]), entry(name="y")], b"1", "add up to 0"),
    ],
)
def test_malformed_inputs_are_refused(
    inputs: list[dict[str, object]], tail: bytes, complaint: str
) -> None:
    header = json.dumps({"inputs": inputs}).encode()
    with pytest.raises(RequestError, match=complaint):
        v2_codec.decode_request(header + tail, len(header) if tail else None)


@pytest.mark.parametrize(
    ("body", "header_length", "complaint"),
    [
        (b"", None, "no JSON"),
        (b"abc", 0, "no JSON"),
        (b"{}", 3, "Inference-Header-Content-Length is 3, the body has 2"),
        (b"[]", None, "Expected `object`"),
        (b'{"inputs": [', None, "truncated"),
        (b'{"inputs": "\xff"}', None, "not an inference request"),
        (b'{"inputs":[{"name":"\xff","datatype":"FP32","shape":[1],"data":[1]}]}', None, "utf-8"),
        (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}',
            None,
            "malformed",
        ),
        (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[Infinity]}]}',
            None,
            "malf",
        ),
        (
            b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1e999]}]}',
            None,
            "out of range",
        ),
        (b'{"inputs":' + b"[" * 100_000, None, "not an inference request"),
        (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":' + b"[" * 100_000,
            None,
            "nested too deeply",
        ),
        (b" " * (v2_codec.MAX_JSON_BYTES + 1), None, "send large tensors as binary data"),
    ],
)
def test_malformed_bodies_are_refused(
    body: bytes, header_length: int | None, complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        v2_codec.decode_request(body, header_length)


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ([{"name": "y"}, {"name": "y"}], "'y' is requested twice"),
        ([{"name": "y", "parameters": {"classification": -1}}], ">= 0"),
        ([{"name": "y", "parameters": {"shared_memory_region": "r"}}], "shared memory"),
        ([{"name": "y", "parameters": {"binary_data": "yes"}}], "Expected `bool"),
        ([{}], "name"),
    ],
)
def test_malformed_wishes_are_refused(outputs: list[object], complaint: str) -> None:
    body = json.dumps({"inputs": [entry()], "outputs": outputs}).encode()
    with pytest.raises(RequestError, match=complaint):
        v2_codec.decode_request(body, None)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"sequence_id": 7}, "parameter sequence_id: calls that share a state are not offered"),
        ({"sequence_id": "s"}, "parameter sequence_id"),
        ({"sequence_id": 0, "sequence_start": True}, "parameter sequence_start"),
        ({"sequence_end": True}, "parameter sequence_end"),
        ({"sequence_start": "yes"}, "Expected `bool`"),
        ({"sequence_id": 0, "sequence_start": False, "sequence_end": False}, ""),
    ],
)
def test_sequences_are_refused(parameters: dict[str, object], complaint: str) -> None:
    body = json.dumps({"inputs": [entry()], "parameters": parameters}).encode()
    if complaint:
        with pytest.raises(RequestError, match=complaint):
            v2_codec.decode_request(body, None)
    else:
        v2_codec.decode_request(body, None)


@given(st.binary(max_size=300), st.none() | st.integers(0, 320))
@example(b'{"inputs":[]}', None)
def test_arbitrary_bytes_raise_nothing_else(body: bytes, header_length: int | None) -> None:
    with contextlib.suppress(RequestError):
        v2_codec.decode_request(body, header_length)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("x") | JSON_VALUES,
            "datatype": st.sampled_from([*Datatype]) | JSON_VALUES,
            "shape": SHAPES | JSON_VALUES,
            "data": st.lists(st.integers(-3, 300) | st.booleans() | st.floats()) | JSON_VALUES,
            "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 99)})
            | JSON_VALUES,
        },
    ),
    st.binary(max_size=16),
)
def test_arbitrary_fields_raise_nothing_else(fields: dict[str, object], tail: bytes) -> None:
    header = json.dumps({"inputs": [fields]}).encode()
    with contextlib.suppress(RequestError):
        (tensor,) = v2_codec.decode_request(header + tail, len(header)).inputs
        if tensor.datatype is Datatype.BYTES:
            assert len(v2_request.elements_of(bytes(tensor.data))) == math.prod(tensor.shape)
        else:
            assert len(tensor.data) == size_bytes(tensor.datatype, tensor.shape)

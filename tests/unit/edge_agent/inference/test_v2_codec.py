"""The V2 codec: what goes in comes out, and nothing that comes in breaks it."""

import contextlib
import json
import math
import struct
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.inference import json_data, v2_codec
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_request import InferenceRequest, Slice
from edge_agent.inference.tensors import Tensor, size_bytes
from fleet_protocol.manifest import Datatype, TensorSpec
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
    return st.lists(
        tensors(finite=finite), min_size=1, max_size=4, unique_by=lambda tensor: tensor.name
    )


def unchanged(found: Tensor, sent: Tensor) -> bool:
    return (found.name, found.datatype, found.shape, bytes(found.data)) == (
        sent.name,
        sent.datatype,
        sent.shape,
        sent.data,
    )


@given(some(finite=True), st.lists(st.booleans(), min_size=4, max_size=4), st.booleans())
def test_requests_survive_the_way(sent: list[Tensor], binary: list[bool], nest: bool) -> None:  # noqa: FBT001
    body, header_length = v2_request.encode(
        sent, binary=binary[: len(sent)], nest=nest, fields={"id": "7"}
    )
    request = v2_codec.decode_request(body, header_length)
    assert request.id == "7"
    assert request.outputs is None
    assert all(unchanged(found, tensor) for found, tensor in zip(request.inputs, sent, strict=True))


@given(some(finite=False))
def test_binary_requests_survive_the_way(sent: list[Tensor]) -> None:
    body, header_length = v2_request.encode(sent, binary=[True] * len(sent))
    request = v2_codec.decode_request(body, header_length)
    assert all(unchanged(found, tensor) for found, tensor in zip(request.inputs, sent, strict=True))


@given(some(finite=False), st.booleans())
def test_binary_answers_survive_the_way(given_outputs: list[Tensor], everything: bool) -> None:  # noqa: FBT001
    wanted = None if everything else {tensor.name: True for tensor in given_outputs}
    request = InferenceRequest(id="", inputs=[], outputs=wanted, binary_output=everything)
    encoded = v2_codec.encode_answer(request, given_outputs, model_name="m", model_version="1.0.0")
    _, outputs = v2_request.decode(b"".join(encoded.parts), encoded.header_length)
    assert list(outputs.items()) == [(t.name, t.data) for t in given_outputs]


def test_binary_requests_may_hold_nan() -> None:
    sent = Tensor(name="x", datatype=Datatype.FP32, shape=[1], data=struct.pack("<f", float("nan")))
    body, header_length = v2_request.encode([sent], binary=[True])
    assert unchanged(v2_codec.decode_request(body, header_length).inputs[0], sent)


@given(some(finite=True), st.lists(st.booleans(), min_size=4, max_size=4), st.randoms())
def test_answers_survive_the_way(
    given_outputs: list[Tensor], binary: list[bool], random: Random
) -> None:
    wanted = list(zip(given_outputs, binary, strict=False))
    random.shuffle(wanted)
    request = InferenceRequest(
        id="é", inputs=[], outputs={t.name: b for t, b in wanted}, binary_output=False
    )
    encoded = v2_codec.encode_answer(request, given_outputs, model_name="m", model_version="1.0.0")
    answer, outputs = v2_request.decode(b"".join(encoded.parts), encoded.header_length)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1.0.0", "é")
    assert list(outputs.items()) == [(t.name, t.data) for t, _ in wanted]


@pytest.mark.parametrize(
    ("fields", "binary"),
    [
        ({}, [False, False]),
        ({"parameters": {"binary_data_output": True}}, [True, True]),
        (
            {
                "parameters": {"binary_data_output": True, "something": "else"},
                "outputs": [{"name": "b", "parameters": {"binary_data": False}}, {"name": "a"}],
            },
            [False, True],
        ),
        (
            {"outputs": [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}]},
            [True, False],
        ),
    ],
)
def test_outputs_travel_as_asked(fields: dict[str, object], binary: list[bool]) -> None:
    source = Tensor(name="a", datatype=Datatype.UINT8, shape=[2], data=b"\1\2")
    other = Tensor(name="b", datatype=Datatype.FP32, shape=[1], data=struct.pack("<f", 0.5))
    body, header_length = v2_request.encode([source], binary=[False], fields=fields)
    request = v2_codec.decode_request(body, header_length)
    encoded = v2_codec.encode_answer(
        request, [source, other], model_name="m", model_version="1.0.0"
    )
    answer, outputs = v2_request.decode(b"".join(encoded.parts), encoded.header_length)
    entries: Any = answer["outputs"]
    assert ["parameters" in entry for entry in entries] == binary
    assert outputs == {"a": source.data, "b": other.data}
    assert (encoded.header_length is None) == (True not in binary)
    assert "id" not in answer


def entry(**changes: object) -> dict[str, object]:
    made = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5], **changes}
    return {key: value for key, value in made.items() if value is not None}


def binary_entry(size: object, **changes: object) -> dict[str, object]:
    return entry(data=None, parameters={"binary_data_size": size}, **changes)


def bytes_entry(size: int, **changes: object) -> dict[str, object]:
    return binary_entry(size, **{"datatype": "BYTES", **changes})


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


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


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


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_cannot_carry_every_number(number: float) -> None:
    output = Tensor(name="y", datatype=Datatype.FP64, shape=[], data=struct.pack("<d", number))
    with pytest.raises(RequestError, match="ask for it as binary data"):
        json_data.to_values(output)


def test_long_outputs_travel_as_binary_data_only() -> None:
    count = json_data.MAX_VALUES + 1
    output = Tensor(name="y", datatype=Datatype.INT8, shape=[count], data=bytes(count))
    with pytest.raises(RequestError, match="ask for it as binary data"):
        json_data.to_values(output)


@pytest.mark.parametrize(
    ("datatype", "data", "complaint"),
    [
        (Datatype.FP16, b"\0\0", "is FP16, which does not travel as JSON: ask for it as binary"),
        (Datatype.BYTES, b"\1\0\0\0\xff", "not UTF-8: ask for it as binary data"),
    ],
)
def test_json_cannot_carry_every_datatype(datatype: Datatype, data: bytes, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        json_data.to_values(Tensor(name="y", datatype=datatype, shape=[1], data=data))


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


def shared(**parameters: object) -> dict[str, object]:
    return {"shared_memory_region": "r", **parameters}


def test_shared_memory_is_named_not_fetched() -> None:
    body = json.dumps(
        {
            "inputs": [
                entry(data=None, parameters=shared(shared_memory_byte_size=8)),
                binary_entry(8, name="z"),
            ],
            "outputs": [
                {
                    "name": "y",
                    "parameters": shared(shared_memory_byte_size=9, shared_memory_offset=7),
                }
            ],
        }
    ).encode()
    request = v2_codec.decode_request(body + bytes(8), len(body), shared_memory=True)
    assert request.shared_inputs == {"x": Slice(region="r", offset=0, byte_size=8)}
    assert request.shared_outputs == {"y": Slice(region="r", offset=7, byte_size=9)}
    output = Tensor(name="y", datatype=Datatype.INT8, shape=[2], data=b"\1\2")
    encoded = v2_codec.encode_answer(request, [output], model_name="m", model_version="1.0.0")
    assert encoded.header_length is None
    (described_output,) = json.loads(b"".join(encoded.parts))["outputs"]
    assert described_output == {"name": "y", "datatype": "INT8", "shape": [2]}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"inputs": [entry(data=None, parameters=shared())]}, "'x' needs shared_memory_byte_size"),
        (
            {"inputs": [entry(data=None, parameters=shared(shared_memory_byte_size=4))]},
            r"declares 4 bytes.*FP32\[2\] takes 8",
        ),
        (
            {"inputs": [entry(parameters=shared(shared_memory_byte_size=8))]},
            "either data or binary_data_size or shared_memory_region",
        ),
        (
            {"inputs": [entry(data=None, parameters=shared(shared_memory_offset=-1))]},
            ">= 0",
        ),
        (
            {
                "inputs": [entry()],
                "outputs": [
                    {
                        "name": "y",
                        "parameters": shared(classification=2, shared_memory_byte_size=8),
                    }
                ],
            },
            "classes cannot be put into shared memory",
        ),
    ],
)
def test_malformed_references_to_shared_memory_are_refused(
    fields: dict[str, object], complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        v2_codec.decode_request(json.dumps(fields).encode(), None, shared_memory=True)

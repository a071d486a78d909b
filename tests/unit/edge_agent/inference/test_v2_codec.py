"""The V2 codec: what goes in comes out."""

import math
import struct
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference import json_data, v2_codec
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.drawn_tensors import some
from tests.unit.edge_agent.inference.v2_request import unchanged


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

"""The V2 codec of the golden check, against the text of the protocol."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.control.v2_binary import decode_answer, encode_request, numbers
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Datatype, GoldenTensor
from tests.simulators.device_releases import fp32


def answer(outputs: list[dict[str, object]], data: bytes) -> tuple[bytes, str]:
    header = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    return header + data, str(len(header))


def output(name: str, size: int, datatype: str = "FP32") -> dict[str, object]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": [1, 1],
        "parameters": {"binary_data_size": size},
    }


def test_a_request_has_its_header_then_the_tensors_in_order() -> None:
    one, two = fp32("a", [1.5], [1]), fp32("b", [2.5, 3.5], [1, 2])
    body, headers = encode_request([one, two], ["y"])
    split = int(headers["Inference-Header-Content-Length"])
    assert json.loads(body[:split]) == {
        "inputs": [
            {
                "name": "a",
                "datatype": "FP32",
                "shape": [1],
                "parameters": {"binary_data_size": 4},
            },
            {
                "name": "b",
                "datatype": "FP32",
                "shape": [1, 2],
                "parameters": {"binary_data_size": 8},
            },
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    assert body[split:] == one.data() + two.data()


def test_an_answer_is_cut_into_its_outputs() -> None:
    body, length = answer([output("a", 4), output("b", 8)], bytes(range(12)))
    tensors = decode_answer(body, length)
    assert tensors["a"].data == bytes(range(4))
    assert tensors["b"].data == bytes(range(4, 12))


@pytest.mark.parametrize(
    ("outputs", "data"),
    [
        ([output("a", 8)], bytes(4)),
        ([output("a", 3)], bytes(3)),
        ([output("a", -4)], bytes(4)),
        ([output("a", 4, "COMPLEX")], bytes(4)),
        ([{"name": "a", "datatype": "FP32", "shape": [1], "data": [1.0]}], b""),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(
    outputs: list[dict[str, object]], data: bytes
) -> None:
    with pytest.raises(ProtocolError):
        decode_answer(*answer(outputs, data))


@given(body=st.binary(max_size=200), length=st.one_of(st.none(), st.text(max_size=5)))
def test_any_other_answer_is_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(ProtocolError):
        decode_answer(body, length)


@pytest.mark.parametrize(
    ("datatype", "data", "values"),
    [
        (Datatype.BOOL, b"\x00\x01", [0, 1]),
        (Datatype.INT8, b"\xff", [-1]),
        (Datatype.UINT16, b"\x01\x02", [513]),
        (Datatype.INT64, b"\xfe" + b"\xff" * 7, [-2]),
        (Datatype.FP16, b"\x00\x3c\x00\xc0", [1.0, -2.0]),
        (Datatype.FP32, b"\x00\x00\x80\x3f", [1.0]),
        (Datatype.FP64, b"\x00" * 6 + b"\xf0\x3f", [1.0]),
    ],
)
def test_numbers_are_little_endian(datatype: Datatype, data: bytes, values: list[float]) -> None:
    assert list(numbers(datatype, data)) == values


def test_a_golden_input_that_contradicts_itself_is_refused() -> None:
    tensor = GoldenTensor(
        name="x",
        datatype=Datatype.FP32,
        shape=[2],
        data_base64=base64.b64encode(bytes(4)).decode(),
    )
    with pytest.raises(ProtocolError):
        encode_request([tensor], ["y"])

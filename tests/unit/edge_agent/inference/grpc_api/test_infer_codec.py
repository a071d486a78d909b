"""Requests and answers on the way over gRPC, held against Triton's own message classes."""

import math
import struct
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from edge_agent.inference.errors import RequestError
from edge_agent.inference.grpc_api import infer_codec
from edge_agent.inference.grpc_api.calls import parsed
from edge_agent.inference.grpc_api.wire.open_inference_pb2 import ModelInferRequest
from edge_agent.inference.inference_request import InferenceRequest, Slice
from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference.grpc_api import requests

SOME = Tensor(name="x0", datatype=Datatype.FP32, shape=[2], data=struct.pack("<2f", 1.0, 2.0))


def decoded(message: ModelInferRequest) -> InferenceRequest:
    sent = parsed(ModelInferRequest, message.SerializeToString())
    return infer_codec.decode_request(sent)


def same(found: Tensor, expected: Tensor) -> bool:
    """Say whether tensors are equal; a NaN may lose its payload among typed contents."""
    if bytes(found.data) == bytes(expected.data):
        return (found.name, found.datatype, found.shape) == (
            expected.name,
            expected.datatype,
            expected.shape,
        )
    pairs = zip(requests.values(found), requests.values(expected), strict=True)
    return all(one == other or (one != one and other != other) for one, other in pairs)  # noqa: PLR0124 (NaN)


@given(st.lists(requests.tensors(typed=False), min_size=1, max_size=4).map(requests.named))
def test_raw_requests_survive_the_way(sent: list[Tensor]) -> None:
    request = decoded(requests.request(sent))
    assert request.id == "7"
    assert request.outputs is None
    assert request.binary_output
    assert all(same(found, tensor) for found, tensor in zip(request.inputs, sent, strict=True))


@given(st.lists(requests.tensors(typed=True), min_size=1, max_size=4).map(requests.named))
def test_typed_requests_survive_the_way(sent: list[Tensor]) -> None:
    request = decoded(requests.request(sent, typed=True))
    assert all(same(found, tensor) for found, tensor in zip(request.inputs, sent, strict=True))


@given(st.lists(requests.tensors(typed=False), min_size=1, max_size=4).map(requests.named))
def test_raw_answers_survive_the_way(sent: list[Tensor]) -> None:
    request = decoded(requests.request([SOME]))
    answer = infer_codec.encode_answer(request, sent, model_name="m", model_version="1.0.0")
    message, data = requests.outputs(answer)
    assert (message.model_name, message.model_version, message.id) == ("m", "1.0.0", "7")
    assert [output.name for output in message.outputs] == [tensor.name for tensor in sent]
    assert [list(output.shape) for output in message.outputs] == [one.shape for one in sent]
    assert data == [bytes(tensor.data) for tensor in sent]


@given(
    st.lists(requests.tensors(typed=True), min_size=1, max_size=4).map(requests.named),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_answers_travel_as_the_request_says(sent: list[Tensor], raw: list[bool]) -> None:
    asked = requests.request([SOME])
    for tensor, binary in zip(sent, raw, strict=False):
        asked.outputs.add(name=tensor.name).parameters["binary_data"].bool_param = binary
    answer = infer_codec.encode_answer(decoded(asked), sent, model_name="m", model_version="1.0.0")
    message, data = requests.outputs(answer)
    for at, tensor in enumerate(sent):
        assert message.outputs[at].HasField("contents") is not raw[at]
        found = Tensor(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=data[at]
        )
        assert same(found, tensor)


def test_a_stream_answer_holds_an_answer() -> None:
    request = decoded(requests.request([SOME]))
    answer = infer_codec.encode_answer(request, [SOME], model_name="m", model_version="1.0.0")
    message = service_pb2.ModelStreamInferResponse.FromString(infer_codec.stream_answer(answer))
    assert message.error_message == ""
    assert message.infer_response.parameters["triton_final_response"].bool_param
    del message.infer_response.parameters["triton_final_response"]
    assert message.infer_response == service_pb2.ModelInferResponse.FromString(answer)


def test_parameters_are_understood() -> None:
    asked = requests.request([SOME])
    asked.parameters["timeout"].int64_param = 5000
    asked.parameters["priority"].uint64_param = 3
    asked.parameters["anything"].double_param = 0.5
    asked.parameters["empty"].Clear()
    asked.outputs.add(name="y").parameters["classification"].int64_param = 4
    request = decoded(asked)
    assert (request.timeout_us, request.priority, request.classes) == (5000, 3, {"y": 4})


@pytest.mark.parametrize(
    ("timeout_us", "left_s", "expected_us"),
    [(0, None, 0), (7, None, 7), (0, 0.5, 500_000), (7, 0.5, 7), (9_000_000, 0.5, 500_000),
     (0, 0.0, 1), (0, -1.0, 1)],
)  # fmt: skip
def test_the_callers_patience_bounds_the_timeout(
    timeout_us: int, left_s: float | None, expected_us: int
) -> None:
    asked = requests.request([SOME])
    asked.parameters["timeout"].int64_param = timeout_us
    sent = parsed(ModelInferRequest, asked.SerializeToString())
    assert infer_codec.decode_request(sent, time_left_s=left_s).timeout_us == expected_us


def test_tensors_in_shared_memory_have_no_contents() -> None:
    other = Tensor(name="x1", datatype=Datatype.FP32, shape=[2], data=b"")
    asked = requests.request([SOME])
    shared = asked.inputs.add(name="x1", datatype="FP32", shape=[2])
    shared.parameters["shared_memory_region"].string_param = "r"
    shared.parameters["shared_memory_byte_size"].int64_param = 8
    shared.parameters["shared_memory_offset"].int64_param = 16
    wanted = asked.outputs.add(name="y").parameters
    wanted["shared_memory_region"].string_param = "r"
    wanted["shared_memory_byte_size"].int64_param = 64
    asked.outputs.add(name="z")
    sent = parsed(ModelInferRequest, asked.SerializeToString())
    request = infer_codec.decode_request(sent, shared_memory=True)
    assert request.inputs == [SOME, other]
    assert request.shared_inputs == {"x1": Slice(region="r", offset=16, byte_size=8)}
    assert request.shared_outputs == {"y": Slice(region="r", offset=0, byte_size=64)}
    outputs = [
        Tensor(name=name, datatype=SOME.datatype, shape=SOME.shape, data=SOME.data) for name in "yz"
    ]
    answer = infer_codec.encode_answer(request, outputs, model_name="m", model_version="1.0.0")
    message, data = requests.outputs(answer)
    assert message.outputs[0].parameters["shared_memory_byte_size"].int64_param == len(SOME.data)
    assert data == [b"", SOME.data]


def _without_contents(message: ModelInferRequest) -> None:
    del message.raw_input_contents[:]


def _too_many_contents(message: ModelInferRequest) -> None:
    message.raw_input_contents.append(b"1234")


def _both_kinds(message: ModelInferRequest) -> None:
    message.inputs[0].contents.fp32_contents.extend([1.0, 2.0])


def _wrong_field(message: ModelInferRequest) -> None:
    _without_contents(message)
    message.inputs[0].contents.int_contents.extend([1, 2])


def _out_of_range(message: ModelInferRequest) -> None:
    _without_contents(message)
    message.inputs[0].datatype = "INT8"
    message.inputs[0].contents.int_contents.extend([1, 200])


def _half_precision(message: ModelInferRequest) -> None:
    _without_contents(message)
    message.inputs[0].datatype = "FP16"
    message.inputs[0].contents.fp32_contents.extend([1, 2])


def _too_many_values(message: ModelInferRequest) -> None:
    _without_contents(message)
    message.inputs[0].shape[0] = 300_000
    message.inputs[0].contents.fp32_contents.extend([0.0] * 300_000)


def _short(message: ModelInferRequest) -> None:
    message.raw_input_contents[0] = b"1234"


def _negative_shape(message: ModelInferRequest) -> None:
    message.inputs[0].shape[0] = -2


def _unknown_datatype(message: ModelInferRequest) -> None:
    message.inputs[0].datatype = "BF16"


def _unknown_typed_datatype(message: ModelInferRequest) -> None:
    _without_contents(message)
    message.inputs[0].datatype = "FP8"


def _no_inputs(message: ModelInferRequest) -> None:
    del message.inputs[:]
    _without_contents(message)


def _twice(message: ModelInferRequest) -> None:
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])


def _shared(message: ModelInferRequest) -> None:
    _without_contents(message)
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8


def _sequence(message: ModelInferRequest) -> None:
    message.parameters["sequence_id"].int64_param = 12


def _named_sequence(message: ModelInferRequest) -> None:
    message.parameters["sequence_id"].string_param = "s"


def _text_as_timeout(message: ModelInferRequest) -> None:
    message.parameters["timeout"].string_param = "soon"


def _negative_timeout(message: ModelInferRequest) -> None:
    message.parameters["timeout"].int64_param = -1


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_without_contents, "has 0 values in fp32_contents, FP32\\[2\\] takes 2"),
        (_too_many_contents, "raw_input_contents has 2 entries, .* take 1"),
        (_both_kinds, "one or the other"),
        (_wrong_field, "is FP32: its values go into fp32_contents, not int_contents"),
        (_out_of_range, "outside the range of INT8"),
        (_half_precision, "is FP16, which travels as raw contents only"),
        (_too_many_values, "at most 262144 travel as typed contents: use raw contents"),
        (_short, "declares 4 bytes of binary data, FP32\\[2\\] takes 8"),
        (_negative_shape, "not an inference request: .*shape"),
        (_unknown_datatype, "has datatype 'BF16'; known are BOOL"),
        (_unknown_typed_datatype, "has datatype 'FP8'; known are BOOL"),
        (_no_inputs, "not an inference request: .*inputs"),
        (_twice, "'x0' is given twice"),
        (_shared, "shared memory is not enabled"),
        (_sequence, "calls that share a state are not offered"),
        (_named_sequence, "calls that share a state are not offered"),
        (_text_as_timeout, "not an inference request: .*timeout"),
        (_negative_timeout, "not an inference request: .*timeout"),
    ],
)
def test_malformed_requests_are_refused(
    spoil: Callable[[ModelInferRequest], None], complaint: str
) -> None:
    message = requests.request([SOME])
    spoil(message)
    with pytest.raises(RequestError, match=complaint):
        decoded(message)


def test_a_missing_raw_entry_is_named() -> None:
    asked = requests.request([SOME])
    asked.inputs.add(name="x1", datatype="FP32", shape=[2])
    with pytest.raises(RequestError, match="has 1 entries: none is left for input 'x1'"):
        decoded(asked)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (Tensor(name="y", datatype=Datatype.FP16, shape=[1], data=b"12"), "raw contents only"),
        (
            Tensor(name="y", datatype=Datatype.INT8, shape=[1 << 19], data=bytes(1 << 19)),
            "at most 262144",
        ),
    ],
)
def test_outputs_that_cannot_travel_as_asked_are_refused(output: Tensor, complaint: str) -> None:
    asked = requests.request([SOME])
    asked.parameters["binary_data_output"].bool_param = False
    with pytest.raises(RequestError, match=complaint):
        infer_codec.encode_answer(decoded(asked), [output], model_name="m", model_version="1.0.0")


@given(st.binary(max_size=400))
def test_no_bytes_do_worse_than_be_refused(payload: bytes) -> None:
    try:
        infer_codec.decode_request(parsed(ModelInferRequest, payload))
    except RequestError:
        pass
    else:
        assert service_pb2.ModelInferRequest.FromString(payload).inputs


@given(
    data=st.data(),
    sent=st.lists(requests.tensors(typed=True), min_size=1, max_size=3),
    typed=st.booleans(),
)
def test_no_damage_does_worse_than_be_refused(
    data: st.DataObject, sent: list[Tensor], *, typed: bool
) -> None:
    payload = bytearray(requests.request(requests.named(sent), typed=typed).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        infer_codec.decode_request(parsed(ModelInferRequest, bytes(payload)))
    except RequestError:
        return
    assert service_pb2.ModelInferRequest.FromString(bytes(payload)).inputs


@given(st.integers(0, 2**35))
def test_lengths_are_written_as_protobuf_reads_them(size: int) -> None:
    message = service_pb2.StatisticDuration(count=size).SerializeToString()
    assert message == (b"\x08" + infer_codec._length(size) if size else b"")
    assert math.ceil(max(1, size.bit_length()) / 7) == len(infer_codec._length(size))


def test_foreign_bytes_are_no_message() -> None:
    with pytest.raises(DecodeError):
        service_pb2.ModelInferRequest.FromString(b"\xff")
    with pytest.raises(RequestError, match="the message is not a ModelInferRequest"):
        parsed(ModelInferRequest, b"\xff")

"""ModelStreamInfer with Triton's clients."""

import queue
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from edge_agent.inference.grpc_api.stream import MAX_IN_WORK
from fleet_protocol.manifest import Datatype
from tests.conformance.triton_grpc.conftest import Served
from tests.conformance.triton_grpc.tensors import given, image, same, sample
from tests.integration.runtime.reference_calls import batch, golden

_INT32 = Datatype.INT32
Answers = queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]]


def test_answers_come_in_the_order_of_the_requests(address: str) -> None:
    answers: Answers = queue.Queue()
    small, large = image(golden("fp32")[0][0]), image(batch(200))
    count = 4 * MAX_IN_WORK
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(count):
            client.async_stream_infer(
                "fashion_mnist", [large if number % 3 else small], request_id=str(number)
            )
        client.stop_stream()
    for number in range(count):
        result, error = answers.get_nowait()
        assert error is None
        assert result is not None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        assert result.as_numpy("logits").shape == (200 if number % 3 else 1, 10)
    assert answers.empty()


def test_errors_are_answers_and_the_stream_goes_on(client: triton.InferenceServerClient) -> None:
    answers: Answers = queue.Queue()
    sent = sample(_INT32)
    good, bad = [given("x", sent, _INT32)], [given("x", sent[0], _INT32)]
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("echo_int32", bad)
    client.async_stream_infer("other", good)
    client.async_stream_infer("echo_int32", good, sequence_id=3)
    client.async_stream_infer("echo_int32", good)
    client.stop_stream()
    for complaint in (r"is INT32\[4\]", "no model 'other'", "share a state"):
        result, error = answers.get_nowait()
        assert result is None
        with pytest.raises(InferenceServerException, match=complaint):
            raise error or AssertionError
    result, error = answers.get_nowait()
    assert result is not None
    assert same(result.as_numpy("y"), sent)


def test_a_failed_request_is_told_apart_by_its_id(served: Served) -> None:
    requests = [
        service_pb2.ModelInferRequest(model_name="other", model_version="7", id="a"),
        service_pb2.ModelInferRequest(model_name="echo_int32", id="b"),
    ]
    with grpc.insecure_channel(served.unix) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter(requests)))
    assert [answer.infer_response.id for answer in answers] == ["a", "b"]
    assert answers[0].infer_response.model_version == "7"
    assert all(answer.error_message for answer in answers)


def test_foreign_bytes_are_an_answer_too(served: Served) -> None:
    with grpc.insecure_channel(served.unix) as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer"
        )
        (answer,) = call(iter([b"\xff"]))
    message = service_pb2.ModelStreamInferResponse.FromString(answer)
    assert message.error_message == "the message is not a ModelInferRequest"


async def test_tritons_asyncio_client_streams(served: Served) -> None:
    sent = sample(_INT32)

    async def requests() -> AsyncIterator[dict[str, object]]:
        for number in range(40):
            yield {
                "model_name": "echo_int32",
                "inputs": [given("x", sent + number, _INT32)],
                "request_id": str(number),
            }

    async with triton_aio.InferenceServerClient(served.unix) as client:
        number = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None
            assert same(result.as_numpy("y"), sent + number)
            number += 1
    assert number == 40


def test_a_stream_that_is_cut_off_disturbs_nobody(served: Served) -> None:
    large = image(batch(500))
    answers: Answers = queue.Queue()
    client = triton.InferenceServerClient(served.unix)
    client.start_stream(lambda result, error: answers.put((result, error)))
    for _ in range(3 * MAX_IN_WORK):
        client.async_stream_infer("fashion_mnist", [large])
    answers.get(timeout=30)
    client.stop_stream(cancel_requests=True)
    client.close()
    with triton.InferenceServerClient(served.unix) as other:
        answered = other.infer("fashion_mnist", [image(golden("fp32")[0][0])], client_timeout=30)
        assert answered.as_numpy("logits").shape == (1, 10)


def test_a_caller_that_does_not_read_is_held_back(served: Served) -> None:
    """The runtime reads no further: what it does not read, the caller cannot send."""
    sent = service_pb2.ModelInferRequest(model_name="fashion_mnist")
    pictures = batch(200)
    sent.inputs.add(name="image", datatype="FP32", shape=pictures.shape)
    sent.raw_input_contents.append(bytes(pictures.data))
    taken = 0
    all_taken = threading.Event()

    def requests() -> Iterator[service_pb2.ModelInferRequest]:
        nonlocal taken
        for _ in range(200):
            taken += 1
            yield sent
        all_taken.set()

    with grpc.insecure_channel(served.unix) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(requests())
        assert not all_taken.wait(1.0)
        assert taken < 200
        assert sum(1 for answer in call if not answer.error_message) == 200
        assert all_taken.is_set()

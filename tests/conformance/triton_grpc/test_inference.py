"""Inference with Triton's gRPC client: every datatype, every way that data travel."""

import asyncio
import queue
import struct

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from fleet_protocol.manifest import Datatype
from tests.conformance.triton_grpc.conftest import MAX_REQUEST_BYTES, Served
from tests.conformance.triton_grpc.tensors import given, image, same, sample
from tests.integration.runtime.reference_calls import batch, golden

_INT32 = Datatype.INT32


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype_travels_raw(
    client: triton.InferenceServerClient, datatype: Datatype
) -> None:
    sent = sample(datatype)
    answer = client.infer(
        f"echo_{datatype.lower()}", [given("x", sent, datatype)], request_id="call 1"
    )
    assert same(answer.as_numpy("y"), sent)
    response = answer.get_response()
    assert (response.id, response.model_name, response.model_version) == (
        "call 1",
        f"echo_{datatype.lower()}",
        "1.0.0",
    )


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        (Datatype.BOOL, "bool_contents", [True, False, True, True]),
        (Datatype.INT8, "int_contents", [-128, 0, 1, 127]),
        (Datatype.INT16, "int_contents", [-32768, 0, 1, 32767]),
        (Datatype.INT32, "int_contents", [-(2**31), 0, 1, 2**31 - 1]),
        (Datatype.INT64, "int64_contents", [-(2**63), 0, 1, 2**63 - 1]),
        (Datatype.UINT8, "uint_contents", [0, 1, 2, 255]),
        (Datatype.UINT16, "uint_contents", [0, 1, 2, 65535]),
        (Datatype.UINT32, "uint_contents", [0, 1, 2, 2**32 - 1]),
        (Datatype.UINT64, "uint64_contents", [0, 1, 2, 2**64 - 1]),
        (Datatype.FP32, "fp32_contents", [0.0, -1.5, 2.25, float("inf")]),
        (Datatype.FP64, "fp64_contents", [0.0, -1.5, 1e300, float("-inf")]),
        (Datatype.BYTES, "bytes_contents", [b"", b"a", "é".encode(), b"x" * 300]),
    ],
)
def test_typed_contents_both_ways(
    served: Served, datatype: Datatype, field: str, values: list[object]
) -> None:
    request = service_pb2.ModelInferRequest(model_name=f"echo_{datatype.lower()}")
    request.parameters["binary_data_output"].bool_param = False
    entry = request.inputs.add(name="x", datatype=datatype, shape=[1, 4])
    getattr(entry.contents, field).extend(values)
    with grpc.insecure_channel(served.unix) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert not answer.raw_output_contents
    assert list(getattr(answer.outputs[0].contents, field)) == values


def test_typed_requests_get_raw_answers_like_tritons(served: Served) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo_int32")
    request.inputs.add(name="x", datatype="INT32", shape=[1, 4]).contents.int_contents.extend(
        [1, 2, 3, 4]
    )
    with grpc.insecure_channel(served.unix) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert struct.unpack("<4i", answer.raw_output_contents[0]) == (1, 2, 3, 4)


def test_golden_images(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        for tensor, expected in golden("fp32")[:4]:
            answer = client.infer("fashion_mnist", [image(tensor)], model_version="1.0.0")
            assert answer.as_numpy("logits")[0] == pytest.approx(expected, abs=1e-3)


def test_a_large_batch_runs_beside_the_loop(client: triton.InferenceServerClient) -> None:
    answered = client.infer("fashion_mnist", [image(batch(500))]).as_numpy("logits")
    expected = [number for _, numbers in golden("fp32") for number in numbers]
    assert answered.ravel()[: len(expected)] == pytest.approx(expected, abs=1e-3)
    assert answered.shape == (500, 10)


def test_outputs_are_those_that_are_asked_for(client: triton.InferenceServerClient) -> None:
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    b = a * 7
    inputs = [given("b", b, _INT32), given("a", a, _INT32)]
    answer = client.infer("adder", inputs, outputs=[triton.InferRequestedOutput("sum")])
    assert same(answer.as_numpy("sum"), a + b)


def test_classes_instead_of_values(client: triton.InferenceServerClient) -> None:
    tensor, expected = golden("fp32")[0]
    wanted = triton.InferRequestedOutput("logits", class_count=3)
    answer = client.infer("fashion_mnist", [image(tensor)], outputs=[wanted])
    first = answer.as_numpy("logits")[0][0].decode().split(":")
    best = int(np.argmax(expected))
    assert (int(first[1]), first[2]) == (best, f"class-{best}")
    assert answer.as_numpy("logits").shape == (1, 3)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client: triton.InferenceServerClient, algorithm: str) -> None:
    sent = sample(_INT32, rows=500)
    answer = client.infer("echo_int32", [given("x", sent, _INT32)], compression_algorithm=algorithm)
    assert same(answer.as_numpy("y"), sent)


def test_calls_in_the_background(client: triton.InferenceServerClient) -> None:
    done: queue.Queue[tuple[triton.InferResult, InferenceServerException | None]] = queue.Queue()
    sent = sample(_INT32)
    for number in range(50):
        client.async_infer(
            "echo_int32",
            [given("x", sent + number, _INT32)],
            callback=lambda result, error: done.put((result, error)),
            request_id=str(number),
        )
    for _ in range(50):
        result, error = done.get(timeout=30)
        assert error is None
        assert same(result.as_numpy("y"), sent + int(result.get_response().id))


async def test_tritons_asyncio_client(served: Served) -> None:
    sent = sample(_INT32)
    async with triton_aio.InferenceServerClient(served.unix) as client:
        assert await client.is_server_ready()
        answers = await asyncio.gather(
            *(client.infer("echo_int32", [given("x", sent + n, _INT32)]) for n in range(30))
        )
    assert all(same(answer.as_numpy("y"), sent + n) for n, answer in enumerate(answers))


def test_timeouts_and_priorities_are_taken(client: triton.InferenceServerClient) -> None:
    sent = sample(_INT32)
    inputs = [given("x", sent, _INT32)]
    answer = client.infer("echo_int32", inputs, timeout=30_000_000, priority=1, client_timeout=30)
    assert same(answer.as_numpy("y"), sent)


def test_a_timeout_that_cannot_be_met_is_a_deadline_exceeded(
    client: triton.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
        client.infer("fashion_mnist", [image(batch(500))], timeout=1)


_IMAGE = np.zeros((1, 1, 28, 28), np.float32)


@pytest.mark.parametrize(
    ("call", "status", "complaint"),
    [
        ({"model_name": "other"}, "NOT_FOUND", "no model 'other' here; this device serves: adder"),
        ({"model_version": "9.0.0"}, "NOT_FOUND", "no active version '9.0.0'"),
        ({"inputs": []}, "INVALID_ARGUMENT", "not an inference request"),
        (
            {"inputs": [given("image", _IMAGE[0], Datatype.FP32)]},
            "INVALID_ARGUMENT",
            r"input 'image' is FP32\[1,28,28\], the model takes FP32\[-1,1,28,28\]",
        ),
        (
            {"inputs": [given("picture", _IMAGE, Datatype.FP32)]},
            "INVALID_ARGUMENT",
            r"takes the inputs \['image'\], the request has \['picture'\]",
        ),
        (
            {"outputs": [triton.InferRequestedOutput("label")]},
            "INVALID_ARGUMENT",
            r"gives the outputs \['logits'\]",
        ),
        ({"sequence_id": 7}, "INVALID_ARGUMENT", "calls that share a state are not offered"),
        ({"sequence_id": "seven"}, "INVALID_ARGUMENT", "calls that share a state"),
        ({"parameters": {"priority_": 1}, "timeout": -1}, "INVALID_ARGUMENT", "timeout"),
    ],
)
def test_errors_say_what_is_wrong(
    client: triton.InferenceServerClient, call: dict[str, object], status: str, complaint: str
) -> None:
    arguments = {"model_name": "fashion_mnist", "inputs": [given("image", _IMAGE, Datatype.FP32)]}
    with pytest.raises(InferenceServerException, match=complaint) as refusal:
        client.infer(**(arguments | call))
    assert refusal.value.status() == f"StatusCode.{status}"
    assert client.is_server_live()


def test_a_message_that_is_too_large_is_refused(client: triton.InferenceServerClient) -> None:
    rows = MAX_REQUEST_BYTES // 16
    for rows_sent, algorithm in ((rows, None), (rows, "gzip")):
        inputs = [given("x", np.zeros((rows_sent, 4), np.int32), _INT32)]
        with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
            client.infer("echo_int32", inputs, compression_algorithm=algorithm)
    fitting = np.ones((rows - 100, 4), np.int32)
    answer = client.infer("echo_int32", [given("x", fitting, _INT32)])
    assert same(answer.as_numpy("y"), fitting)


@pytest.mark.parametrize("payload", [b"\xff", b"\x0a\x05ab", b"\x00" * 100])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ModelConfig"])
def test_foreign_bytes_are_refused(served: Served, method: str, payload: bytes) -> None:
    with grpc.insecure_channel(served.unix) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}"
        )
        with pytest.raises(grpc.RpcError) as refusal:
            call(payload, timeout=30)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"the message is not a {method}Request" in (refusal.value.details() or "")
    with triton.InferenceServerClient(served.unix) as client:
        assert client.is_server_live()


def test_unknown_methods_are_unimplemented(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        client.get_trace_settings()

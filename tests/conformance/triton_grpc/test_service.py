"""Health, descriptions, repository and shared memory with Triton's gRPC client."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from fleet_protocol.manifest import Datatype
from tests.conformance.triton_grpc.conftest import MAX_REQUEST_BYTES, Served
from tests.conformance.triton_grpc.tensors import given, same, sample

_FAMILIES = ["adder", *sorted(f"echo_{one.lower()}" for one in Datatype), "fashion_mnist"]
_FP32 = Datatype.FP32


@contextlib.contextmanager
def region(name: str, byte_size: int) -> Iterator[tuple[str, Any]]:
    """A shared memory region of Triton's own making, with its key."""
    key = f"/skerry-{secrets.token_hex(8)}"
    handle = shared_memory.create_shared_memory_region(name, key, byte_size)
    try:
        yield key, handle
    finally:
        with contextlib.suppress(shared_memory.SharedMemoryException):
            shared_memory.destroy_shared_memory_region(handle)


def test_health(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("fashion_mnist")
        assert client.is_model_ready("fashion_mnist", "1.0.0")
        assert not client.is_model_ready("fashion_mnist", "2.0.0")
        assert not client.is_model_ready("other")


def test_server_metadata(client: triton.InferenceServerClient) -> None:
    metadata = client.get_server_metadata()
    assert metadata.name == "skerry"
    assert metadata.version
    assert {"statistics", "system_shared_memory"} <= set(metadata.extensions)


def test_model_metadata(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("fashion_mnist", as_json=True)
    # Triton's own message has no such field, and its client takes no offence.
    assert metadata == {
        "name": "fashion_mnist",
        "versions": ["1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": ["-1", "1", "28", "28"]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": ["-1", "10"]}],
    }
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND.* no model 'other'"):
        client.get_model_metadata("other")


def test_model_metadata_says_which_variant_runs_and_why(served: Served) -> None:
    with grpc.insecure_channel(served.tcp) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            request_serializer=wire.ModelMetadataRequest.SerializeToString,
            response_deserializer=wire.ModelMetadataResponse.FromString,
        )
        found = ask(wire.ModelMetadataRequest(name="fashion_mnist"), timeout=30)
    assert {name: value.string_param for name, value in found.parameters.items()} == {
        "variant": "fp32",
        "accelerator": "cpu",
        "choice": "the only one",
    }


def test_model_configuration(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("fashion_mnist").config
    assert config.parameters["variant"].string_value == "fp32"
    assert config.parameters["choice"].string_value == "the only one"
    assert (config.name, config.backend) == ("fashion_mnist", "onnxruntime")
    assert config.max_batch_size == MAX_REQUEST_BYTES // (4 * 28 * 28)
    assert list(config.input[0].dims) == [1, 28, 28]
    assert not config.model_transaction_policy.decoupled
    for datatype in Datatype:
        found = client.get_model_config(f"echo_{datatype.lower()}", as_json=True)
        name = "STRING" if datatype is Datatype.BYTES else datatype.value
        assert found["config"]["input"][0]["data_type"] == f"TYPE_{name}"


def test_statistics(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("echo_fp64").model_stats[0]
    for rows in (1, 3):
        client.infer("echo_fp64", [given("x", sample(Datatype.FP64, rows), Datatype.FP64)])
    with pytest.raises(InferenceServerException):
        client.infer("echo_fp64", [])
    after = client.get_inference_statistics("echo_fp64", "1.0.0").model_stats[0]
    assert after.inference_count - before.inference_count == 4
    assert after.execution_count - before.execution_count == 2
    assert after.inference_stats.success.count - before.inference_stats.success.count == 2
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.last_inference
    everyone = client.get_inference_statistics().model_stats
    assert [model.name for model in everyone] == _FAMILIES


def test_the_repository_may_be_seen_and_not_changed(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index().models
    assert [(model.name, model.version, model.state) for model in index] == [
        (family, "1.0.0", "READY") for family in _FAMILIES
    ]
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="what it has been assigned") as refusal:
            change("fashion_mnist")
        assert refusal.value.status() == "StatusCode.PERMISSION_DENIED"
    assert client.is_model_ready("fashion_mnist")


def test_tensors_in_shared_memory(client: triton.InferenceServerClient) -> None:
    sent = sample(_FP32)
    with region("in", sent.nbytes + 64) as (key_in, inputs), region("out", 4096) as (key, outputs):
        shared_memory.set_shared_memory_region(inputs, [sent], offset=64)
        client.register_system_shared_memory("in", key_in, sent.nbytes + 64)
        client.register_system_shared_memory("out", key, 4096)
        status = client.get_system_shared_memory_status().regions
        assert {name: (one.key, one.byte_size) for name, one in status.items()} == {
            "in": (key_in, sent.nbytes + 64),
            "out": (key, 4096),
        }
        given_input = triton.InferInput("x", list(sent.shape), "FP32")
        given_input.set_shared_memory("in", sent.nbytes, offset=64)
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("out", 4096 - 128, offset=128)
        answer = client.infer("echo_fp32", [given_input], outputs=[wanted])
        output = answer.get_output("y")
        assert output.parameters["shared_memory_byte_size"].int64_param == sent.nbytes
        # Empty, but there: Triton's C++ client reads it without asking.
        assert list(answer.get_response().raw_output_contents) == [b""]
        found = shared_memory.get_contents_as_numpy(outputs, np.float32, sent.shape, offset=128)
        assert same(found, sent)
        answer = client.infer("echo_fp32", [given_input])
        assert same(answer.as_numpy("y"), sent)
        client.unregister_system_shared_memory("in")
        with pytest.raises(InferenceServerException, match="no shared memory region 'in'"):
            client.infer("echo_fp32", [given_input], outputs=[wanted])


def test_large_tensors_in_shared_memory(client: triton.InferenceServerClient) -> None:
    sent = np.arange(4 * 200_000, dtype=np.float32).reshape(-1, 4)
    with region("r", 2 * sent.nbytes) as (key, handle):
        shared_memory.set_shared_memory_region(handle, [sent])
        client.register_system_shared_memory("r", key, 2 * sent.nbytes)
        given_input = triton.InferInput("x", list(sent.shape), "FP32")
        given_input.set_shared_memory("r", sent.nbytes)
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("r", sent.nbytes, offset=sent.nbytes)
        client.infer("echo_fp32", [given_input], outputs=[wanted])
        found = shared_memory.get_contents_as_numpy(
            handle, np.float32, sent.shape, offset=sent.nbytes
        )
        assert same(found, sent)


def test_a_region_that_vanishes_is_an_error(client: triton.InferenceServerClient) -> None:
    sent = sample(_FP32)
    with region("r", sent.nbytes) as (key, _):
        client.register_system_shared_memory("r", key, sent.nbytes)
        given_input = triton.InferInput("x", list(sent.shape), "FP32")
        given_input.set_shared_memory("r", sent.nbytes)
        os.truncate(Path("/dev/shm") / key[1:], 4)  # noqa: S108 (where Linux has it)
        with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.* smaller than"):
            client.infer("echo_fp32", [given_input])
    assert client.is_server_live()


@pytest.mark.parametrize(
    ("name", "key", "byte_size", "complaint"),
    [
        ("r", "/skerry-there-is-none", 8, "cannot open"),
        ("r", "../etc/passwd", 8, "is no key of a shared memory region"),
        ("r", "", 8, "not a shared memory region"),
        ("r", "/k", 0, "not a shared memory region"),
        ("", "/k", 8, "the name of a region has 1 to 200 characters"),
        ("n" * 300, "/k", 8, "the name of a region has 1 to 200 characters"),
    ],
)
def test_regions_that_cannot_be_registered(
    client: triton.InferenceServerClient, name: str, key: str, byte_size: int, complaint: str
) -> None:
    with pytest.raises(InferenceServerException, match=complaint) as refusal:
        client.register_system_shared_memory(name, key, byte_size)
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert not client.get_system_shared_memory_status().regions


def test_a_name_that_is_taken(client: triton.InferenceServerClient) -> None:
    with region("r", 64) as (key, _):
        client.register_system_shared_memory("r", key, 64)
        with pytest.raises(InferenceServerException, match=r"FAILED_PRECONDITION.* already"):
            client.register_system_shared_memory("r", key, 64)
        assert list(client.get_system_shared_memory_status("r").regions) == ["r"]
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            client.get_system_shared_memory_status("s")


def test_cuda_shared_memory_is_declined_politely(client: triton.InferenceServerClient) -> None:
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    client.unregister_cuda_shared_memory("r")
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.* CUDA devices"):
        client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64)

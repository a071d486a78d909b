"""What Triton's HTTP client can ask about the runtime and its models."""

import os

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.conformance.triton_http.conftest import MAX_REQUEST_BYTES, Served
from tests.integration.runtime.raw_client import RawClient


def test_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("adder")
    assert client.is_model_ready("adder", "1.0.0")
    assert not client.is_model_ready("adder", "2.0.0")
    assert not client.is_model_ready("other")


def test_server_metadata(client: triton.InferenceServerClient) -> None:
    metadata = client.get_server_metadata()
    assert metadata["name"] == "skerry"
    assert metadata["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "schedule_policy",
        "statistics",
        "system_shared_memory",
    ]


def test_model_metadata(client: triton.InferenceServerClient) -> None:
    assert client.get_model_metadata("echo_bytes", "1.0.0") == {
        "name": "echo_bytes",
        "versions": ["1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1, 4]}],
        "parameters": {"variant": "plain", "accelerator": "cpu", "choice": ""},
    }


def test_the_configuration_of_a_model_with_a_batch(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("adder")
    assert config == client.get_model_config("adder", "1.0.0")
    assert {key: config[key] for key in ("name", "platform", "backend")} == {
        "name": "adder",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
    }
    assert config["max_batch_size"] == MAX_REQUEST_BYTES // 32
    assert config["instance_group"] == [
        {"name": "adder_cpu", "count": os.cpu_count(), "kind": "KIND_CPU"}
    ]
    assert not {"dynamic_batching", "response_cache"} & config.keys()
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    assert config["input"] == [
        {"name": name, "data_type": "TYPE_INT32", "dims": [4]} for name in ("a", "b")
    ]
    assert config["output"] == [{"name": "sum", "data_type": "TYPE_INT32", "dims": [4]}]
    assert client.get_model_config("echo_bytes")["input"][0]["data_type"] == "TYPE_STRING"


def test_the_configuration_of_a_model_without(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("image")
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [1, 3 * 224 * 224]


def test_statistics_count_calls_and_items(client: triton.InferenceServerClient) -> None:
    def measured() -> dict[str, int]:
        (entry,) = client.get_inference_statistics("echo_uint8", "1.0.0")["model_stats"]
        assert (entry["name"], entry["version"]) == ("echo_uint8", "1.0.0")
        stats = entry["inference_stats"]
        assert set(stats) >= {"queue", "compute_input", "compute_infer", "compute_output"}
        return {
            "items": entry["inference_count"],
            "runs": entry["execution_count"],
            "success": stats["success"]["count"],
            "fail": stats["fail"]["count"],
            "ns": stats["success"]["ns"],
        }

    before = measured()
    made = triton.InferInput("x", [3, 4], "UINT8")
    made.set_data_from_numpy(np.zeros((3, 4), np.uint8))
    for _ in range(2):
        client.infer("echo_uint8", [made])
    with pytest.raises(InferenceServerException):
        client.infer("echo_uint8", [made], outputs=[triton.InferRequestedOutput("none")])
    after = measured()
    grown = {name: after[name] - before[name] for name in after}
    assert grown.pop("ns") > 0
    assert grown == {"items": 6, "runs": 2, "success": 2, "fail": 1}


def test_statistics_of_all_models(client: triton.InferenceServerClient) -> None:
    names = [entry["name"] for entry in client.get_inference_statistics()["model_stats"]]
    assert names == sorted(names)
    assert {"adder", "echo_fp16", "fashion_mnist"} <= set(names)


def test_the_repository_may_be_looked_at(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    assert {"name": "adder", "version": "1.0.0", "state": "READY", "reason": ""} in index


@pytest.mark.parametrize("action", ["load_model", "unload_model"])
def test_applications_change_nothing(client: triton.InferenceServerClient, action: str) -> None:
    with pytest.raises(InferenceServerException, match="applications cannot") as refusal:
        getattr(client, action)("adder")
    assert refusal.value.status() == "400"
    assert client.is_model_ready("adder")


def test_the_admin_socket_loads_and_unloads(served: Served) -> None:
    with RawClient(served.runtime.state.admin_socket) as admin:
        path = "/v2/repository/models/echo_uint16"
        unload = b'{"parameters": {"unload_dependents": false}}'
        assert admin.call("POST", f"{path}/unload", unload).status == 200
        assert admin.call("GET", "/v2/models/echo_uint16").status == 404
        assert admin.call("POST", f"{path}/unload").status == 404
        assert b'"echo_uint16"' not in admin.call("POST", "/v2/repository/index").body
        for _ in range(2):
            assert admin.call("POST", f"{path}/load", b"{}").status == 200
        assert admin.call("GET", "/v2/models/echo_uint16/ready").status == 200
        assert b'"echo_uint16"' in admin.call("POST", "/v2/repository/index").body
        refused = admin.call("POST", f"{path}/load", b'{"parameters": {"config": "{}"}}')
        assert (refused.status, "takes no parameters" in refused.error) == (400, True)
        unknown = admin.call("POST", "/v2/repository/models/other/load")
        assert (unknown.status, "has not committed to a release" in unknown.error) == (404, True)


@pytest.mark.parametrize("call", ["get_trace_settings", "get_log_settings"])
def test_what_is_not_offered_is_said_so(client: triton.InferenceServerClient, call: str) -> None:
    with pytest.raises(InferenceServerException, match="no such path") as refusal:
        getattr(client, call)()
    assert refusal.value.status() == "404"

"""Triton's load generator over HTTP."""

import json
import socket
from pathlib import Path

import pytest

from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype
from tests.conformance import load_generator
from tests.conformance.triton_http.conftest import Served
from tests.integration.runtime.running_runtime import running
from tests.simulators.onnx_files import identity_release
from tests.unit.edge_agent.inference.reference_release import commit

pytestmark = load_generator.installed


@pytest.mark.parametrize(
    "options",
    [
        ["-m", "fashion_mnist", "-b", "8", "--concurrency-range", "4"],
        ["-m", "image", "--shared-memory", "system"],
        ["-m", "echo_bytes", "--string-length", "9"],
        ["-m", "fashion_mnist", "--input-data", "zero", "--input-tensor-format", "json"],
    ],
)
def test_it_runs(served: Served, tmp_path: Path, options: list[str]) -> None:
    assert load_generator.load(tmp_path, "-u", served.address, *options) > 0


def test_it_runs_where_waiting_calls_are_joined_and_answers_are_kept(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    state = StateDir(tmp_path / "device")
    commit(state, identity_release(state, "echo", Datatype.FP32, [-1, 4]))
    settings = {
        "PORT": str(port),
        "MAX_BATCH": "8",
        "BATCH_WAIT_US": "2000",
        "RESPONSE_CACHE_BYTES": "100000",
    }
    environment = {f"SKERRY_AGENT_RUNTIME__{key}": value for key, value in settings.items()}
    with running(state.root, **environment) as runtime:
        with runtime.ready().public() as client:
            config = json.loads(client.call("GET", "/v2/models/echo/config").body)
        assert config["response_cache"] == {"enable": True}
        assert config["dynamic_batching"] == {
            "preferred_batch_size": [8],
            "max_queue_delay_microseconds": 2000,
        }
        assert load_generator.load(tmp_path, "-u", f"127.0.0.1:{port}", "-m", "echo") > 0

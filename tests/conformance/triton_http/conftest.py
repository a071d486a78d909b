"""A runtime with models of every datatype, and Triton's own HTTP client on it, as it is."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import tritonclient.http as triton

from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.simulators.onnx_files import identity_release, one_node_release
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

MAX_REQUEST_BYTES = 8_000_000
IMAGE_VALUES = 3 * 224 * 224


@dataclass(frozen=True)
class Served:
    """A running runtime and where it listens."""

    runtime: RunningRuntime
    address: str
    port: int


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A runtime with shared memory enabled that serves the models below."""
    root = tmp_path_factory.mktemp("triton_http")
    state = StateDir(root)
    pair = [TensorSpec(name=name, datatype=Datatype.INT32, shape=[-1, 4]) for name in "ab"]
    total = [TensorSpec(name="sum", datatype=Datatype.INT32, shape=[-1, 4])]
    commit(
        state,
        reference_release(state),
        one_node_release(state, "adder", "Add", pair, total),
        identity_release(state, "image", Datatype.FP32, [1, IMAGE_VALUES]),
        identity_release(state, "large", Datatype.FP32, [-1, 250_000]),
        *(
            identity_release(state, f"echo_{datatype.lower()}", datatype, [-1, 4])
            for datatype in Datatype
        ),
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    settings = {
        "SKERRY_AGENT_RUNTIME__PORT": str(port),
        "SKERRY_AGENT_RUNTIME__SHARED_MEMORY": "true",
        "SKERRY_AGENT_RUNTIME__SHARED_MEMORY_BYTES": "100000000",
        "SKERRY_AGENT_RUNTIME__MAX_REQUEST_BYTES": str(MAX_REQUEST_BYTES),
    }
    with running(root, **settings) as started:
        yield Served(started.ready(), f"127.0.0.1:{port}", port)
        assert "traceback" not in started.log_text()


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    """Triton's client, which finds nothing registered."""
    with triton.InferenceServerClient(served.address, network_timeout=30.0) as connected:
        connected.unregister_system_shared_memory()
        yield connected

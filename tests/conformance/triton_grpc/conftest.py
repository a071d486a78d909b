"""A runtime with gRPC turned on and models of every datatype, and Triton's own client on it."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest
import tritonclient.grpc as triton

from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.integration.runtime.running_runtime import RunningRuntime, eventually, running
from tests.simulators.onnx_files import identity_release, one_node_release
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

MAX_REQUEST_BYTES = 4_000_000


@dataclass(frozen=True)
class Served:
    """A running runtime and its addresses in gRPC's notation."""

    runtime: RunningRuntime
    tcp: str
    unix: str


@pytest.fixture
def grpc_port() -> int:
    """A TCP port that was free a moment ago."""
    return free_port()


def free_port() -> int:
    """Return a TCP port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def listening(runtime: RunningRuntime, servers: int) -> RunningRuntime:
    """Wait until a runtime serves gRPC on so many addresses."""
    runtime.ready()
    eventually(lambda: len(runtime.events("grpc_listening")) == servers, runtime.log_text)
    return runtime


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A runtime with shared memory enabled that serves the models below."""
    root = tmp_path_factory.mktemp("triton_grpc")
    state = StateDir(root)
    pair = [TensorSpec(name=name, datatype=Datatype.INT32, shape=[-1, 4]) for name in "ab"]
    total = [TensorSpec(name="sum", datatype=Datatype.INT32, shape=[-1, 4])]
    commit(
        state,
        msgspec.structs.replace(reference_release(state), choice="the only one"),
        one_node_release(state, "adder", "Add", pair, total),
        *(
            identity_release(state, f"echo_{datatype.lower()}", datatype, [-1, 4])
            for datatype in Datatype
        ),
    )
    port = free_port()
    settings = {
        "SKERRY_AGENT_RUNTIME__GRPC_PORT": str(port),
        "SKERRY_AGENT_RUNTIME__GRPC_SOCKET": "true",
        "SKERRY_AGENT_RUNTIME__SHARED_MEMORY": "true",
        "SKERRY_AGENT_RUNTIME__MAX_REQUEST_BYTES": str(MAX_REQUEST_BYTES),
    }
    with running(root, **settings) as started:
        listening(started, 2)
        yield Served(started, f"127.0.0.1:{port}", f"unix:{state.grpc_socket}")
        assert "traceback" not in started.log_text()


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, served: Served) -> str:
    """Both ways to the service, one after the other."""
    found: str = getattr(served, request.param)
    return found


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    """Triton's client on the Unix socket, which finds nothing registered."""
    with triton.InferenceServerClient(served.unix) as connected:
        connected.unregister_system_shared_memory()
        yield connected

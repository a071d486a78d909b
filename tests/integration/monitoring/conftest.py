"""What a real server and a real runtime say on ``/metrics``, with something to tell."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.state_dir import StateDir
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.reference_calls import INFER, golden, infer
from tests.integration.runtime.running_runtime import running
from tests.integration.server.running_server import RunningServer, serving
from tests.unit.edge_agent.inference.reference_release import commit, reference_release
from tests.unit.fleet_server.authority import Fleet


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from serving(Fleet.provision(tmp_path_factory.mktemp("server") / "a"))


@pytest.fixture(scope="module")
def server_metrics(server: RunningServer) -> str:
    server.enroll("cam-1")
    token = server.api_token("viewer")
    server.request("GET", "/api/v1/devices", token=token)
    server.request("GET", "/api/v1/trust/broker", token=server.api_token("broker"))
    answer = server.request("GET", "/metrics", token=token)
    assert answer.status == 200
    return answer.data.decode()


@pytest.fixture(scope="module")
def runtime_metrics(tmp_path_factory: pytest.TempPathFactory) -> str:
    state = StateDir(_short(tmp_path_factory))
    state.create()
    commit(state, reference_release(state))
    with running(state.root) as runtime, runtime.ready().public() as client:
        infer(client, golden("fp32")[0][0])
        client.call("POST", INFER, b"{")
        return _page(client)


def _page(client: RawClient) -> str:
    answer = client.call("GET", "/metrics")
    assert answer.status == 200
    return answer.body.decode()


def _short(factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose path leaves room for a socket's name."""
    return factory.mktemp("rt")

"""One runtime with the reference model for the tests that change nothing."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.state_dir import StateDir
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.unit.edge_agent.inference.reference_release import commit, reference_release


@pytest.fixture(scope="session")
def port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[RunningRuntime]:
    """A runtime that serves the FP32 reference model as fashion_mnist 1.0.0."""
    root = tmp_path_factory.mktemp("rt")
    state = StateDir(root)
    commit(state, reference_release(state))
    settings = {
        "SKERRY_AGENT_RUNTIME__PORT": str(port),
        "SKERRY_AGENT_RUNTIME__MAX_REQUEST_BYTES": "1000000",
    }
    with running(root, **settings) as started:
        yield started.ready()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """A state directory of a test's own."""
    made = StateDir(tmp_path / "device")
    made.create()
    return made

"""One provisioned fleet per session; servers on copies of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.server.running_server import EnrolledDevice, RunningServer, serving
from tests.unit.fleet_server.authority import Fleet


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.provision(tmp_path_factory.mktemp("authority") / "a")


@pytest.fixture(scope="module")
def server(provisioned: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from serving(provisioned.copy_to(tmp_path_factory.mktemp("server") / "a"))


@pytest.fixture
def fleet(provisioned: Fleet, tmp_path: Path) -> Fleet:
    return provisioned.copy_to(tmp_path / "a")


@pytest.fixture(scope="module")
def alice(server: RunningServer) -> EnrolledDevice:
    return server.enroll("alice")


@pytest.fixture(scope="module")
def mallory(server: RunningServer) -> EnrolledDevice:
    return server.enroll("mallory")

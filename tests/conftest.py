"""What the tests of a session share: databases, made when one first asks, and the collector."""

import gc
from collections.abc import Iterator

import pytest

from fleet_server import collector
from tests.simulators import warm_processes
from tests.simulators.migrated_file import MigratedFile
from tests.simulators.postgresql_cluster import Cluster


def pytest_collection() -> None:
    """Look for no garbage while modules are loaded: they stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for it as seldom as the server does, and not in what was loaded."""
    collector.settle()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Leave nothing of what was forked."""
    warm_processes.end()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> MigratedFile:
    return MigratedFile(tmp_path_factory.mktemp("migrated"))

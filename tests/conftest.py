"""The databases that all tests of a session share; they are made when the first test asks."""

from collections.abc import Iterator

import pytest

from tests.simulators.migrated_file import MigratedFile
from tests.simulators.postgresql_cluster import Cluster


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

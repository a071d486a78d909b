"""The PostgreSQL server that all tests of a session share; it starts when the first one asks."""

from collections.abc import Iterator

import pytest

from tests.simulators.postgresql_cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made.start()
    finally:
        made.stop()

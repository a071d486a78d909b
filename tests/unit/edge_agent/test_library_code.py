"""Unmapping library code: what was in use stays, what has come since goes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import library_code
from tests.unit.edge_agent.mapped_library import FAR, SIZE, MappedLibrary


@pytest.fixture
def library(tmp_path: Path) -> Iterator[MappedLibrary]:
    made = MappedLibrary(tmp_path / "library")
    yield made
    made.close()


def test_without_bounds_everything_goes(library: MappedLibrary) -> None:
    library.call(0)
    assert library.is_mapped(0)
    library_code.unmap()
    assert not library.is_mapped(0)
    library.call(0)


def test_what_was_in_use_stays_and_what_was_touched_since_goes(library: MappedLibrary) -> None:
    library.call(0)
    unused = library_code.unused()
    library.call(FAR)
    library_code.unmap(unused)
    assert library.is_mapped(0)
    assert not library.is_mapped(FAR)


def test_a_library_that_has_come_since_goes_whole(library: MappedLibrary, tmp_path: Path) -> None:
    library.call(0)
    unused = library_code.unused()
    other = MappedLibrary(tmp_path / "other")
    other.call(0)
    library_code.unmap(unused)
    assert library.is_mapped(0)
    assert not other.is_mapped(0)
    other.close()


def test_ranges_beyond_a_library_that_has_shrunk_are_left_alone(library: MappedLibrary) -> None:
    library.call(0)
    library_code.unmap({library.start: [(library.start, library.start + 2 * SIZE)]})
    assert library.is_mapped(0)

"""Memory that is about to be overwritten."""

import pytest

from edge_agent.inference.unwritten_memory import unwritten


@pytest.mark.parametrize("size", [0, 1, 32 * 1024 - 1, 32 * 1024, 5_000_001])
def test_it_is_as_long_as_asked_and_an_array_like_any_other(size: int) -> None:
    array = unwritten(size)
    assert len(array) == size
    array[:] = b"x" * size
    assert bytes(array) == b"x" * size


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(MemoryError):
        unwritten(1 << 62)

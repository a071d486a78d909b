"""Numbers with what they count."""

import pytest

from fleet_protocol.counting import counted


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 devices"), (1, "1 device"), (2, "2 devices"), (1200, "1200 devices")],
)
def test_only_one_is_singular(number: int, said: str) -> None:
    assert counted(number, "device") == said


def test_a_plural_may_be_of_its_own() -> None:
    assert [counted(n, "entry", "entries") for n in (1, 3)] == ["1 entry", "3 entries"]

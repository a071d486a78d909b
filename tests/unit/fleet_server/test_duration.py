"""Times in commands."""

from datetime import timedelta

import pytest

from fleet_server.duration import duration
from fleet_server.errors import RefusedError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
    ],
)
def test_a_number_and_its_unit(text: str, meant: timedelta) -> None:
    assert duration(text, option="--for") == meant


@pytest.mark.parametrize("text", ["", "12", "h", "-1h", "1.5h", "1w", "12h ", "9999999s"])
def test_anything_else_is_refused_by_the_option_s_name(text: str) -> None:
    with pytest.raises(RefusedError, match="--for"):
        duration(text, option="--for")

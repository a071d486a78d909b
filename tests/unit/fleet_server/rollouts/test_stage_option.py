"""Stages on the command line."""

import pytest

from fleet_server.errors import RefusedError
from fleet_server.rollouts.stage_option import stages


def test_counts_shares_and_soaks() -> None:
    assert stages("2:90s, 12.5%:30m,100%") == [
        {"count": 2, "soak_s": 90.0},
        {"percent": 12.5, "soak_s": 1800.0},
        {"percent": 100.0},
    ]


@pytest.mark.parametrize("text", ["", "1,,100%", "all", "10 %", "5:", "5:soon", "-1", "1e9%"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="--stages"):
        stages(text)

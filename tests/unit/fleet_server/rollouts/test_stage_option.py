"""Stages on the command line."""

import pytest

from fleet_server.errors import RefusedError
from fleet_server.rollouts.schemas import PlanBody
from fleet_server.rollouts.stage_option import DEFAULT_STAGES, stages


def test_counts_shares_and_soaks() -> None:
    assert stages("2:90s, 12.5%:30m,100%") == [
        {"count": 2, "soak_s": 90.0},
        {"percent": 12.5, "soak_s": 1800.0},
        {"percent": 100.0},
    ]


def test_the_default_is_a_plan_that_the_server_takes() -> None:
    plan = PlanBody.model_validate({"stages": stages(DEFAULT_STAGES)})
    assert plan.stages[0].count == 1
    assert plan.stages[-1].percent == 100


@pytest.mark.parametrize("text", ["", "1,,100%", "all", "10 %", "5:", "5:soon", "-1", "1e9%"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="--stages"):
        stages(text)

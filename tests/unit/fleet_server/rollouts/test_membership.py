"""The stages of a rollout that was asked for without any."""

import pytest

from fleet_server.rollouts.membership import stage_ends, with_stages
from fleet_server.rollouts.plan import Plan, Stage


@pytest.mark.parametrize(
    ("members", "min_samples", "ends"),
    [
        (1, 1, [1]),
        (2, 1, [1, 2]),
        (10, 1, [1, 10]),
        (15, 1, [1, 2, 15]),
        (1000, 1, [1, 100, 1000]),
        (5, 3, [5]),
        (6, 3, [3, 6]),
        (100, 5, [5, 10, 100]),
    ],
)
def test_a_canary_a_tenth_and_everyone_as_far_as_they_can_be_judged(
    members: int, min_samples: int, ends: list[int]
) -> None:
    plan = Plan(family="m", version="1.0.0", stages=(), min_samples=min_samples)
    assert stage_ends(with_stages(plan, members), members) == ends


def test_stages_that_were_asked_for_stay() -> None:
    plan = Plan(family="m", version="1.0.0", stages=(Stage(percent=50), Stage(percent=100)))
    assert with_stages(plan, 1000) == plan

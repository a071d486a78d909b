"""How often rollouts are stopped that should not be, and how often they are that should.

Whole rollouts are simulated, with all of their looks, because each look is another chance to err.
Rates are held against the bounds that chance leaves them: the draws are the same in every run.
"""

import math
import random
from collections.abc import Callable

import pytest

from fleet_protocol.histogram import of_values
from fleet_server.rollouts.comparison import Period, Sample, Samples, compare
from fleet_server.rollouts.plan import ComparisonPolicy

POLICY = ComparisonPolicy()
_LOOKS = ((5, 55), (10, 50), (20, 40), (40, 20), (60, 0))
"""Devices on the new and on the old release at each look of one rollout."""

_CALLS = POLICY.min_requests
_ROLLOUTS = 40
Drift = Callable[[random.Random], float]


def calm(dice: random.Random) -> float:
    """A device is as fast before as after, within a few percent."""
    return dice.lognormvariate(0, 0.03)


def loud(dice: random.Random) -> float:
    """Its load changes by a quarter and more, and one in twenty becomes three times as slow."""
    return dice.lognormvariate(0, 0.25) * (3.0 if dice.random() < 0.05 else 1.0)


def device(
    dice: random.Random, drift: Drift, *, slower: float, spread: float, calls: int = _CALLS
) -> Sample:
    speed = dice.uniform(1_000, 50_000)

    def period(factor: float) -> Period:
        times = [speed * factor * math.exp(dice.gauss(0, spread)) for _ in range(calls)]
        return Period(calls, 0, of_values(times))

    return Sample(period(1.0), period(drift(dice) * slower))


def is_stopped(seed: int, drift: Drift, *, slower: float, spread: float) -> bool:
    """Go through all looks of one rollout; devices that changed keep what they did."""
    dice = random.Random(seed)  # noqa: S311 (data of a test)
    most = max(new for new, _ in _LOOKS)
    changed = [device(dice, drift, slower=slower, spread=spread) for _ in range(most)]
    stayed = [device(dice, drift, slower=1.0, spread=spread) for _ in range(_LOOKS[0][1])]
    return any(
        finding.worse
        for look, (new, old) in enumerate(_LOOKS, 1)
        for finding in compare(POLICY, Samples(changed[:new], stayed[:old]), look=look)
    )


@pytest.mark.parametrize(
    ("drift", "slower", "spread"),
    [
        pytest.param(loud, 1.0, 1.0, id="a good release under heavy noise"),
        pytest.param(calm, 1.08, 0.3, id="a release just within the margin"),
    ],
)
def test_releases_within_the_margin_are_hardly_ever_stopped(
    drift: Drift, slower: float, spread: float
) -> None:
    stops = sum(is_stopped(n, drift, slower=slower, spread=spread) for n in range(_ROLLOUTS))
    assert stops <= 4  # alpha allows 5 % of them over all looks, and chance twice as many


def test_twenty_percent_are_found_with_twenty_devices() -> None:
    found = 0
    for seed in range(20):
        dice = random.Random(seed)  # noqa: S311 (data of a test)
        new = [device(dice, calm, slower=1.2, spread=0.3, calls=200) for _ in range(20)]
        old = [device(dice, calm, slower=1.0, spread=0.3, calls=200) for _ in range(40)]
        findings = compare(POLICY, Samples(new, old), look=2)
        found += any(finding.worse for finding in findings)
    assert found >= 19

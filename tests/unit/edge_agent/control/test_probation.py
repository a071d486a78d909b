"""Verdicts on probation, as tables."""

import math
import random

import pytest

from edge_agent.control.probation import PATIENCE, Health, Judgement, Verdict, judge
from edge_agent.control.significance import chance_of_at_least, highest_plausible_share
from fleet_protocol.histogram import Histogram, of_values
from fleet_protocol.manifest import Acceptance

GO_ON, COMMIT, ROLL_BACK = Verdict.GO_ON, Verdict.COMMIT, Verdict.ROLL_BACK
PROBATION_S = 10.0
END_S = PATIENCE * PROBATION_S


def judged(
    seen: Health | None,
    elapsed_s: float,
    limits: Acceptance | None = None,
    previous: Health | None = None,
) -> Judgement:
    return judge(
        seen,
        previous,
        limits or Acceptance(),
        elapsed_s=elapsed_s,
        probation_s=PROBATION_S,
    )


@pytest.mark.parametrize(
    ("requests", "errors", "elapsed_s", "expected"),
    [
        (0, 0, 0.0, GO_ON),
        (0, 0, 10.0, COMMIT),
        (1000, 0, 9.9, GO_ON),
        (1000, 0, 10.0, COMMIT),
        # one unlucky call, or two, say nothing ...
        (1, 1, 1.0, GO_ON),
        (1, 1, 10.0, GO_ON),
        (1, 1, END_S, COMMIT),
        (100, 2, 1.0, GO_ON),
        (100, 2, 10.0, GO_ON),
        (100, 2, END_S, COMMIT),
        # ... what chance does not explain says enough, however early
        (2, 2, 1.0, ROLL_BACK),
        (100, 7, 1.0, ROLL_BACK),
        (100, 4, 1.0, GO_ON),
        (1000, 22, 1.0, ROLL_BACK),
        (1000, 19, 10.0, ROLL_BACK),
        (1000, 10, 1.0, GO_ON),
        (1000, 10, 10.0, COMMIT),
        (1_000_000, 10_400, 1.0, ROLL_BACK),
        (1_000_000, 10_000, 10.0, COMMIT),
    ],
)
def test_one_percent_may_fail(
    requests: int, errors: int, elapsed_s: float, expected: Verdict
) -> None:
    assert judged(Health(requests, errors), elapsed_s).verdict is expected


@pytest.mark.parametrize(("errors", "expected"), [(0, GO_ON), (1, ROLL_BACK)])
def test_where_nothing_may_fail_the_first_error_decides(errors: int, expected: Verdict) -> None:
    assert judged(Health(5, errors), 1.0, Acceptance(max_error_rate=0.0)).verdict is expected


@pytest.mark.parametrize(
    ("elapsed_s", "expected"),
    [(1.0, GO_ON), (10.0, GO_ON), (END_S - 0.1, GO_ON), (END_S, ROLL_BACK)],
)
def test_counts_that_cannot_be_read_are_not_taken_for_health_nor_waited_for_without_end(
    elapsed_s: float, expected: Verdict
) -> None:
    found = judged(None, elapsed_s)
    assert found.verdict is expected
    assert found.retry == (expected is ROLL_BACK)


@pytest.mark.parametrize(
    ("before", "seen", "expected"),
    [
        (Health(10_000, 100), Health(1000, 20), COMMIT),  # 1 % before, 2 % now
        (Health(10_000, 100), Health(1000, 60), ROLL_BACK),
        (Health(10_000, 500), Health(1000, 60), COMMIT),  # 5 % before, 6 % now
        (Health(99, 0), Health(1000, 60), COMMIT),  # too little to compare with
        (None, Health(1000, 60), COMMIT),
    ],
)
def test_error_rate_against_the_previous_release(
    before: Health | None, seen: Health, expected: Verdict
) -> None:
    limits = Acceptance(max_error_rate=1.0, max_error_rate_increase=0.02)
    found = judged(seen, END_S, limits, before)
    assert found.verdict is expected
    assert ("not compared" in found.reason) == (before is None or before.requests < 100)


def served(latency_us: Histogram) -> Health:
    return Health(latency_us.count, 0, latency_us)


def latencies(count: int, middle_us: float, *, seed: int = 1) -> Histogram:
    chance = random.Random(seed)  # noqa: S311 (a sample, no secret)
    return of_values(middle_us * chance.lognormvariate(0, 0.3) for _ in range(count))


@pytest.mark.parametrize(
    ("before", "seen", "expected"),
    [
        (latencies(5000, 1000), latencies(5000, 1000, seed=2), COMMIT),
        (latencies(5000, 1000), latencies(5000, 1400, seed=2), COMMIT),
        (latencies(5000, 1000), latencies(5000, 1900, seed=2), ROLL_BACK),
        (latencies(100, 1000), latencies(100, 4000, seed=2), ROLL_BACK),
        (latencies(99, 1000), latencies(5000, 9000, seed=2), COMMIT),
        (latencies(5000, 1000), latencies(99, 9000, seed=2), COMMIT),
    ],
)
def test_p95_against_the_previous_release(
    before: Histogram, seen: Histogram, expected: Verdict
) -> None:
    found = judged(served(seen), END_S, Acceptance(max_p95_ratio=1.5), served(before))
    assert found.verdict is expected
    assert ("not compared" in found.reason) == (min(before.count, seen.count) < 100)


def test_equal_releases_are_hardly_ever_rolled_back() -> None:
    """Both from one distribution, ratio 1, the smallest samples: chance alone decides."""
    rolled_back = sum(
        judged(
            served(latencies(150, 1000, seed=2 * at)),
            PROBATION_S,
            Acceptance(max_p95_ratio=1.0),
            served(latencies(150, 1000, seed=2 * at + 1)),
        ).verdict
        is ROLL_BACK
        for at in range(300)
    )
    assert rolled_back <= 3


@pytest.mark.parametrize(
    ("count", "trials", "share"), [(1, 1, 0.01), (3, 10, 0.1), (7, 100, 0.01), (60, 100, 0.5)]
)
def test_the_chance_is_the_binomial_tail(count: int, trials: int, share: float) -> None:
    exact = sum(
        math.comb(trials, hits) * share**hits * (1 - share) ** (trials - hits)
        for hits in range(count, trials + 1)
    )
    assert chance_of_at_least(count, trials, share) == pytest.approx(exact)


def test_a_share_that_was_never_seen_may_still_be_there() -> None:
    assert 0.04 < highest_plausible_share(0, 100, 2.33) < 0.06

"""Comparing releases by devices: harm is found, noise is not, however loud single devices are."""

import random

import pytest

from fleet_protocol.histogram import of_values
from fleet_server.rollouts.comparison import Against, Finding, Period, Sample, Samples, compare
from fleet_server.rollouts.plan import ComparisonPolicy

POLICY = ComparisonPolicy()


def device(
    dice: random.Random, *, slower: float = 1.0, errors: float = 0.0, calls: int = 80
) -> Sample:
    """Return a board of its own speed, with a drift of its own between the periods."""
    speed = dice.uniform(1_000, 50_000)
    drift = dice.gauss(1.0, 0.03)

    def period(factor: float, share: float) -> Period:
        times = [speed * factor * dice.lognormvariate(0, 0.25) for _ in range(calls)]
        failed = sum(dice.random() < share for _ in range(calls))
        return Period(calls, failed, of_values(times))

    return Sample(period(1.0, 0.001), period(drift * slower, 0.001 + errors))


def fleet(  # noqa: PLR0913 (what a test varies, by keyword)
    seed: int,
    *,
    new: int = 5,
    old: int = 15,
    slower: float = 1.0,
    errors: float = 0.0,
    calls: int = 80,
) -> Samples:
    dice = random.Random(seed)  # noqa: S311 (data of a test)
    return Samples(
        [device(dice, slower=slower, errors=errors, calls=calls) for _ in range(new)],
        [device(dice, calls=calls) for _ in range(old)],
    )


def worse(findings: list[Finding]) -> set[str]:
    return {finding.question for finding in findings if finding.worse}


@pytest.mark.parametrize(("new", "old", "at_least"), [(5, 20, 14), (10, 40, 19)])
def test_twenty_percent_slower_is_found(new: int, old: int, at_least: int) -> None:
    found = [
        worse(compare(POLICY, fleet(seed, new=new, old=old, slower=1.2, calls=400), look=1))
        for seed in range(20)
    ]
    assert sum("latency p50" in questions for questions in found) >= at_least


def test_failing_calls_are_found() -> None:
    for seed in range(10):
        assert "errors" in worse(compare(POLICY, fleet(seed, errors=0.2), look=1))


@pytest.mark.parametrize("slower", [1.0, 1.08])
def test_a_release_within_the_margin_is_left_alone(slower: float) -> None:
    alarms = sum(bool(worse(compare(POLICY, fleet(n, slower=slower), look=1))) for n in range(60))
    assert alarms <= 3  # alpha allows 2.5 % of them at the first look


def test_one_broken_device_is_noise() -> None:
    samples = fleet(1)
    broken = device(random.Random(2), slower=30.0, errors=0.9)  # noqa: S311 (data of a test)
    findings = compare(POLICY, Samples([*samples.new[1:], broken], samples.old), look=1)
    assert worse(findings) == set()


@pytest.mark.parametrize(
    ("new", "old", "against"),
    [
        (1, 15, Against.NOTHING),
        (2, 2, Against.NOTHING),
        (5, 15, Against.OLD_DEVICES),
        (12, 0, Against.OWN_PAST),
    ],
)
def test_what_is_compared_with_what(new: int, old: int, against: Against) -> None:
    findings = compare(POLICY, fleet(3, new=new, old=old, slower=1.3), look=1)
    latency = next(finding for finding in findings if finding.question == "latency p50")
    assert latency.against is against
    assert latency.worse is (against is not Against.NOTHING)


def test_a_change_of_all_devices_at_once_is_not_the_release() -> None:
    """Noon is busier than dawn for those on the old release as well."""
    dice = random.Random(4)  # noqa: S311 (data of a test)
    noon = [device(dice, slower=1.5) for _ in range(25)]
    assert worse(compare(POLICY, Samples(noon[:8], noon[8:]), look=1)) == set()


def test_devices_without_traffic_do_not_count() -> None:
    dice = random.Random(5)  # noqa: S311 (data of a test)
    quiet = [device(dice, slower=2.0, calls=POLICY.min_requests - 1) for _ in range(20)]
    findings = compare(POLICY, Samples(quiet, fleet(6).old), look=1)
    assert not any(finding.conclusive for finding in findings)
    assert all("too few devices" in str(finding) for finding in findings)


def test_looks_spend_no_more_than_alpha() -> None:
    limits = [compare(POLICY, Samples(), look=look) for look in range(1, 200)]
    spent = sum(finding.limit for findings in limits for finding in findings)
    assert spent <= POLICY.alpha

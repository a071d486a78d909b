"""Is the new release worse than the old one? Judged by devices, never by single calls.

Calls of one device resemble each other, so a thousand calls of five devices are five observations
and not five thousand (Donner and Klar, Design and Analysis of Cluster Randomization Trials, 2000).
Each device gives one number per question:

- errors: its share of failed calls on the new release (or, for comparison, on the old one);
- latency: the logarithm of how a quantile of its merged histograms changed between the period
  before and the period after, so that a slow board is compared with itself.

Those of devices on the new release are tested against those of devices that stayed on the old one
in the same time (`rank_tests.rank_sum`); where too few stayed, against the devices' own past
(`rank_tests.signed_rank`). The margins of the policy are part of the hypothesis: a release within
them is not worse. Looks are repeated, so look k may only spend ``alpha / (k * (k + 1))``, which
sums to alpha over any number of looks, divided by the number of questions (Bonferroni).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

import msgspec

from fleet_protocol.counting import counted
from fleet_protocol.histogram import Histogram
from fleet_server.rollouts.plan import ComparisonPolicy
from fleet_server.rollouts.rank_tests import (
    least_rank_sum_p,
    least_signed_rank_p,
    rank_sum,
    signed_rank,
)


@dataclass(frozen=True, slots=True)
class Period:
    """What one device did with one release in one period; latency in microseconds."""

    requests: int = 0
    errors: int = 0
    latency_us: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, slots=True)
class Sample:
    """One device before and after: after the change, or after the time at which others changed."""

    before: Period = Period()
    after: Period = Period()


@dataclass(frozen=True, slots=True)
class Samples:
    """Devices on the new release, and those that stayed on the old one."""

    new: Sequence[Sample] = ()
    old: Sequence[Sample] = ()


class Against(StrEnum):
    """What the devices on the new release were compared with."""

    OLD_DEVICES = "devices on the old release"
    OWN_PAST = "the same devices before"
    NOTHING = "nothing"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question.

    Attributes:
        question: ``errors`` or ``latency p<percent>``.
        worse_by: estimated change: of the share of failed calls, absolute; of latency, relative.
        p: probability of such data if the change were exactly the margin.
        limit: of p, below which the release counts as worse; for this look and question.
        new_devices: that had enough calls.
    """

    question: str
    against: Against
    new_devices: int
    old_devices: int
    conclusive: bool
    worse: bool
    worse_by: float | None
    margin: float
    p: float | None
    limit: float

    def __str__(self) -> str:
        if not self.conclusive:
            return (
                f"{self.question}: too few devices with traffic to tell "
                f"({self.new_devices} new, {self.old_devices} old)"
            )
        change = (
            f"{100 * (self.worse_by or 0.0):+.1f} {'%' if 'latency' in self.question else 'points'}"
        )
        return (
            f"{self.question} {change} on {counted(self.new_devices, 'device')} against "
            f"{self.against} (margin {100 * self.margin:g}, p {self.p:.2g}, limit {self.limit:.2g})"
        )


def level(policy: ComparisonPolicy, look: int) -> float:
    """Return the p-value below which a question of a look (counted from 1) finds harm."""
    return policy.alpha / (look * (look + 1)) / (1 + len(policy.quantiles))


def heard(policy: ComparisonPolicy, samples: Samples) -> float:
    """Return of how many devices that had calls before there are enough since, as a share.

    Of the new or of the old ones, whichever is less: a few that answer first must not decide for
    all, and without the old ones a load that everybody has would look like the release's.
    """

    def share(those: Sequence[Sample]) -> float:
        had = [each.after for each in those if each.before.requests >= policy.min_requests]
        enough = sum(after.requests >= policy.min_requests for after in had)
        return enough / len(had) if had else 1.0

    return min(share(samples.new), share(samples.old))


def compare(policy: ComparisonPolicy, samples: Samples, *, look: int) -> list[Finding]:
    """Answer every question of a policy.

    Args:
        policy: margins and how much may be spent.
        samples: the devices.
        look: number of this look in the rollout, counted from 1.
    """
    limit = level(policy, look)
    findings = [_errors(policy, samples, limit)]
    findings += [_latency(policy, samples, quantile, limit) for quantile in policy.quantiles]
    return findings


def _errors(policy: ComparisonPolicy, samples: Samples, limit: float) -> Finding:
    def share(period: Period) -> float | None:
        return period.errors / period.requests if period.requests >= policy.min_requests else None

    pairs = [(share(sample.before), share(sample.after)) for sample in samples.new]
    old = [share(sample.after) for sample in samples.old]
    return _finding(
        "errors",
        new=[after for _, after in pairs if after is not None],
        old=[value for value in old if value is not None],
        changes=[
            after - before for before, after in pairs if before is not None and after is not None
        ],
        margin=policy.error_margin,
        shift=policy.error_margin,
        limit=limit,
    )


def _latency(policy: ComparisonPolicy, samples: Samples, quantile: float, limit: float) -> Finding:
    def changes(those: Sequence[Sample]) -> list[float]:
        found = (_log_ratio(sample, quantile, policy.min_requests) for sample in those)
        return [value for value in found if value is not None]

    new = changes(samples.new)
    finding = _finding(
        f"latency p{100 * quantile:g}",
        new=new,
        old=changes(samples.old),
        changes=new,
        margin=policy.latency_margin,
        shift=math.log1p(policy.latency_margin),
        limit=limit,
    )
    if finding.worse_by is None:
        return finding
    return msgspec.structs.replace(finding, worse_by=math.expm1(finding.worse_by))


def _log_ratio(sample: Sample, quantile: float, min_requests: int) -> float | None:
    before, after = sample.before.latency_us, sample.after.latency_us
    if min(before.count, after.count) < min_requests:
        return None
    earlier, later = before.quantile(quantile), after.quantile(quantile)
    return None if earlier is None or later is None else math.log(later / earlier)


def _finding(  # noqa: PLR0913 (the question, by keyword)
    question: str,
    *,
    new: list[float],
    old: list[float],
    changes: list[float],
    margin: float,
    shift: float,
    limit: float,
) -> Finding:
    against, p, worse_by = Against.NOTHING, None, None
    if least_rank_sum_p(len(new), len(old)) <= limit:
        against = Against.OLD_DEVICES
        p = rank_sum([value - shift for value in new], old)
        worse_by = median(late - early for late in new for early in old)
    elif least_signed_rank_p(len(changes)) <= limit:
        against = Against.OWN_PAST
        p = signed_rank([value - shift for value in changes])
        worse_by = median(changes)
    return Finding(
        question=question,
        against=against,
        new_devices=len(new),
        old_devices=len(old),
        conclusive=p is not None,
        worse=p is not None and p <= limit,
        worse_by=worse_by,
        margin=margin,
        p=p,
        limit=limit,
    )

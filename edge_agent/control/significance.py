"""Whether so many of so few can be chance: exact binomial tails and upper bounds. Pure.

A device may see ten calls in a probation or a million. A plain comparison of shares rolls good
releases back on the first unlucky call, so a limit counts as exceeded only if chance hardly
explains it.
"""

import math
from collections.abc import Mapping

from fleet_protocol.histogram import SCALE, bucket_value

_NEGLIGIBLE = 1e-12


def chance_of_at_least(count: int, trials: int, share: float) -> float:
    """Return the probability of ``count`` or more hits when each trial hits with ``share``.

    Computed as the sum of the upper tail of the binomial distribution, from its largest term on.
    """
    if count <= 0:
        return 1.0
    if share <= 0.0 or count > trials:
        return 0.0
    if share >= 1.0 or count <= trials * share:
        return 1.0  # not above what is expected: nothing to explain
    term = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(count + 1)
        - math.lgamma(trials - count + 1)
        + count * math.log(share)
        + (trials - count) * math.log1p(-share)
    )
    total = 0.0
    odds = share / (1 - share)
    for hits in range(count, trials + 1):
        total += term
        # Above the mean each term is smaller than the one before.
        term *= (trials - hits) / (hits + 1) * odds
        if term < total * _NEGLIGIBLE:
            break
    return min(1.0, total)


def highest_plausible_share(count: int, trials: int, z: float) -> float:
    """Return the upper end of the Wilson score interval of an observed share.

    Args:
        count: hits.
        trials: at least one.
        z: quantile of the normal distribution, 2.33 for 99 % on one side.
    """
    share = count / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return min(1.0, (middle + spread) / (1 + z * z / trials))


def highest_plausible_quantile(buckets: Mapping[int, int], q: float, z: float) -> float:
    """Return the upper end of what the q-quantile of a histogram may be, from its order statistics.

    Args:
        buckets: counts of `fleet_protocol.histogram.Histogram`, at least one.
        q: from 0 to 1.
        z: as above.
    """
    trials = sum(buckets.values())
    rank = min(trials, math.ceil(trials * q + z * math.sqrt(trials * q * (1 - q))))
    seen = 0
    for index in sorted(buckets):
        seen += buckets[index]
        if seen >= rank:
            return bucket_value(index)
    return math.inf


def certainly_above(buckets: Mapping[int, int], limit: float) -> int:
    """Return how many values of a histogram lie above a limit wherever in their bucket they lie."""
    return sum(
        count for index, count in buckets.items() if index and 2 ** (index / (1 << SCALE)) >= limit
    )

"""Two rank tests of location, one-sided, in exact form for small samples.

`rank_sum` is the test of Wilcoxon (1945) and Mann and Whitney (1947, doi:10.1214/aoms/1177730491):
do new values tend to be larger than old ones? `signed_rank` is Wilcoxon's test of paired
differences (1945, doi:10.2307/3001968): do differences tend to be larger than zero? Both need no
assumption on the shape of the distributions, and one broken device moves them by one rank. Ties
get midranks and the exact distribution is that of the ranks at hand (Lehmann, Nonparametrics,
1975, sections 1.4 and 3.1); large samples use the normal approximation with its correction for
ties and for continuity.
"""

import math
from collections.abc import Sequence
from itertools import groupby

_EXACT_PAIRS = 24
"""Up to this number of values together the exact distribution is counted out."""


def rank_sum(new: Sequence[float], old: Sequence[float]) -> float:
    """Return the p-value of "new values are not larger than old ones".

    Raises:
        ValueError: one of the samples is empty.
    """
    if not new or not old:
        raise ValueError("both samples need values")
    ranks = _doubled_midranks([*new, *old])
    observed = sum(ranks[: len(new)])
    total = len(ranks)
    if total <= _EXACT_PAIRS:
        ways = _subset_sums(ranks, len(new))
        extreme = sum(count for value, count in ways.items() if value >= observed)
        return extreme / math.comb(total, len(new))
    mean = len(new) * (total + 1)
    ties = sum(size**3 - size for size in _group_sizes(ranks))
    variance = (
        len(new) * len(old) / 12 * ((total + 1) - ties / (total * (total - 1)))
    ) * 4  # the ranks are doubled
    return _upper_tail(observed - mean, variance)


def signed_rank(differences: Sequence[float]) -> float:
    """Return the p-value of "differences are not larger than zero".

    Differences of exactly zero say nothing and are left out; without any other, p is 1.
    """
    kept = [difference for difference in differences if difference != 0]
    if not kept:
        return 1.0
    ranks = _doubled_midranks([abs(difference) for difference in kept])
    observed = sum(rank for rank, value in zip(ranks, kept, strict=True) if value > 0)
    if len(kept) <= _EXACT_PAIRS:
        ways = _signed_sums(ranks)
        extreme = sum(count for value, count in ways.items() if value >= observed)
        return float(extreme / 2 ** len(kept))
    mean = sum(ranks) / 2
    variance = sum(rank**2 for rank in ranks) / 4
    return _upper_tail(observed - mean, variance)


def least_rank_sum_p(new: int, old: int) -> float:
    """Return the smallest p-value that samples of these sizes can reach."""
    return 1.0 if not new or not old else 1 / math.comb(new + old, new)


def least_signed_rank_p(pairs: int) -> float:
    """Return the smallest p-value that this number of differences can reach."""
    return float(2.0**-pairs)


def binomial_tail(failures: int, of: int, share: float) -> float:
    """Return the chance of at least this many failures if each has the given probability.

    The exact one-sided test of a proportion (Clopper and Pearson 1934,
    doi:10.1093/biomet/26.4.404).
    """
    if failures <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    term = math.exp(
        math.lgamma(of + 1)
        - math.lgamma(failures + 1)
        - math.lgamma(of - failures + 1)
        + failures * math.log(share)
        + (of - failures) * math.log1p(-share)
    )
    total = term
    for count in range(failures, of):
        term *= (of - count) / (count + 1) * share / (1 - share)
        total += term
        if count > of * share and term < total * 1e-12:
            break
    return min(1.0, total)


def _doubled_midranks(values: Sequence[float]) -> list[int]:
    """Return ranks times two, which makes midranks whole numbers."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    start = 0
    for _, group in groupby(order, key=values.__getitem__):
        members = list(group)
        for index in members:
            ranks[index] = 2 * start + len(members) + 1
        start += len(members)
    return ranks


def _group_sizes(ranks: Sequence[int]) -> list[int]:
    return [len(list(group)) for _, group in groupby(sorted(ranks))]


def _subset_sums(ranks: Sequence[int], size: int) -> dict[int, int]:
    """Return in how many ways a subset of the size has each sum."""
    ways: list[dict[int, int]] = [{0: 1}, *({} for _ in range(size))]
    for rank in ranks:
        for chosen in range(size, 0, -1):
            for value, count in ways[chosen - 1].items():
                ways[chosen][value + rank] = ways[chosen].get(value + rank, 0) + count
    return ways[size]


def _signed_sums(ranks: Sequence[int]) -> dict[int, int]:
    """Return with how many choices of signs the positive ranks have each sum."""
    ways = {0: 1}
    for rank in ranks:
        following = dict(ways)
        for value, count in ways.items():
            following[value + rank] = following.get(value + rank, 0) + count
        ways = following
    return ways


def _upper_tail(deviation: float, variance: float) -> float:
    if variance <= 0:
        return 1.0
    corrected = deviation - 1.0  # half a rank, doubled
    return 0.5 * math.erfc(corrected / math.sqrt(2 * variance))

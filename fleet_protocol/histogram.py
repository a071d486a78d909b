"""A mergeable histogram with a bounded relative error, in which latencies travel.

Buckets grow exponentially: bucket ``i`` holds the values in ``(base**i, base**(i+1)]`` with
``base = 2 ** 2**-SCALE``, as in the base-2 exponential histogram of the OpenTelemetry metrics data
model. Two histograms merge by adding counts, so a quantile of the merged one has the same error
bound as a quantile of each part: at most ``sqrt(base) - 1`` (2.2 % at scale 4). That is why the
fleet's p99 comes from histograms and never from averages of percentiles.
"""

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec

SCALE = 4
"""Each power of two is divided into ``2 ** SCALE`` buckets."""

_BUCKETS_PER_OCTAVE = 1 << SCALE
MIN_INDEX = 0
"""The bucket of everything up to one unit and a little more; smaller values are counted there."""
MAX_INDEX = 30 * _BUCKETS_PER_OCTAVE - 1
"""The bucket that also takes everything larger, 2**30 units (18 minutes in microseconds)."""

RELATIVE_ERROR = math.sqrt(2 ** (1 / _BUCKETS_PER_OCTAVE)) - 1
"""Bound on the relative error of a quantile of values from 1 to 2**30 units."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""So bounded that a sum over a fleet fits in 64 bits and every JSON reader holds it exactly."""

Index = Annotated[int, msgspec.Meta(ge=MIN_INDEX, le=MAX_INDEX)]


def bucket_index(value: float) -> int:
    """Return the bucket of a value, clamped to the first and the last one.

    Args:
        value: in the unit of the histogram, at least 0.
    """
    if value <= 1.0:
        return MIN_INDEX
    return min(math.ceil(math.log2(value) * _BUCKETS_PER_OCTAVE) - 1, MAX_INDEX)


def bucket_value(index: int) -> float:
    """Return the value that stands for a bucket: the geometric middle of its bounds."""
    return float(2 ** ((index + 0.5) / _BUCKETS_PER_OCTAVE))


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """A sparse histogram as it travels and as it is stored; merging gives a new one.

    Attributes:
        buckets: counts by bucket index; a bucket that is absent is empty.
        total: sum of all recorded values, in the unit of the field that holds the histogram.
    """

    buckets: Annotated[dict[Index, Count], msgspec.Meta(max_length=MAX_INDEX + 1)] = {}
    total: Annotated[float, msgspec.Meta(ge=0, le=1e24)] = 0.0

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return sum(self.buckets.values())

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile (q from 0 to 1), or None while nothing is recorded.

        Raises:
            ValueError: q lies outside 0 to 1.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile is asked for with q from 0 to 1, not {q}")
        rank = max(1, math.ceil(q * self.count))
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= rank:
                return bucket_value(index)
        return None


def of_values(values: Iterable[float]) -> Histogram:
    """Return the histogram of some values, each at least 0."""
    buckets: dict[int, int] = {}
    total = 0.0
    for value in values:
        index = bucket_index(value)
        buckets[index] = buckets.get(index, 0) + 1
        total += value
    return Histogram(buckets=buckets, total=total)


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return the histogram that would have come of recording all values into one."""
    buckets: dict[int, int] = {}
    total = 0.0
    for histogram in histograms:
        for index, count in histogram.buckets.items():
            buckets[index] = buckets.get(index, 0) + count
        total += histogram.total
    return Histogram(buckets=buckets, total=total)

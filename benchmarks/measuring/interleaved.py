"""Times several ways of doing the same thing in turns, so that all see the same machine.

A machine that slows down for a second slows all of them down: ratios and differences within one run
hold where absolute times from separate runs do not.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_SETTLE_NS = 25_000_000
"""So long calls at the start of a turn are not timed (two at least): caches, processor and servers
come back from the others."""

_UNTIMED_CALLS = 2

_MAX_TURN_NS = 60_000_000
"""A slow contender has fewer calls in its turn, at least one."""


Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """How long the calls of one contender took, in microseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, times_us: Times) -> Self:
        """Describe the times of calls."""
        p50, p90, p99 = np.percentile(times_us, [50, 90, 99])
        return cls(
            count=len(times_us),
            mean=float(times_us.mean()),
            p50=float(p50),
            p90=float(p90),
            p99=float(p99),
        )


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    calls_per_turn: int,
    warm_up: int = 20,
    seed: int = 0,
) -> dict[str, Times]:
    """Give each contender so many turns of so many calls, the order drawn anew for each turn.

    One caller, one call at a time. The collector of this process rests meanwhile.

    Args:
        contenders: name to one call.
        turns: for each.
        calls_per_turn: timed ones, fewer where they take longer than 60 ms together.
        warm_up: calls of each before the first turn.
        seed: of the order.

    Returns:
        The times of each contender's calls, in microseconds.
    """
    for call in contenders.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[int]] = {name: [] for name in contenders}
    order = list(contenders)
    generator = random.Random(seed)  # noqa: S311 - an order of turns is no secret
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            generator.shuffle(order)
            for name in order:
                _turn(contenders[name], calls_per_turn, times[name])
    finally:
        gc.enable()
    return {name: np.array(taken) / 1000 for name, taken in times.items()}


def _turn(call: Callable[[], object], count: int, times: list[int]) -> None:
    clock = time.perf_counter_ns
    settled = clock() + _SETTLE_NS
    for _ in range(_UNTIMED_CALLS):
        call()
    while clock() < settled:
        call()
    until = clock() + _MAX_TURN_NS
    for _ in range(count):
        start = clock()
        call()
        end = clock()
        times.append(end - start)
        if end > until:
            break

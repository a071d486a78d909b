"""The verdict on a candidate that serves: pure, from counters and time.

The candidate's calls are counted from the switch on, those of the previous release since the same
runtime loaded it, so both on this device. A limit is exceeded if chance would explain it in less
than one of a hundred probations, or of a thousand looks before the end, however few or many calls
there were. The previous release is given the benefit of its own doubt: its rate and p95 are taken
at the upper end of what they may be (99 %), and only from `MIN_SAMPLE` calls on.

When the time is over, a candidate that looks worse than it may but not surely so, or whose counts
cannot be read, is watched for longer, `PATIENCE` times the probation at most. Then a doubt is
settled in its favour, and said; counts that cannot be read mean that nobody knows whether it
serves, which is no success.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from edge_agent.control.significance import (
    certainly_above,
    chance_of_at_least,
    highest_plausible_quantile,
    highest_plausible_share,
)
from edge_agent.counters import Counts
from fleet_protocol.histogram import Histogram
from fleet_protocol.manifest import Acceptance
from fleet_protocol.messages import ErrorKind

MIN_SAMPLE = 100
"""Calls of either release below which p95 says nothing, and the previous one's error rate."""

PATIENCE = 4
_CHANCE_AT_A_LOOK = 0.001
_CHANCE_AT_THE_END = 0.01
_Z = 2.33
_P95 = 0.95


class Verdict(Enum):
    """What becomes of the candidate."""

    GO_ON = "go on"
    COMMIT = "commit"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Health:
    """What a release has done since it was loaded."""

    requests: int
    errors: int
    latency_us: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason: why it is rolled back, or what could not be judged.

    Attributes:
        retry: it was not the release's fault; it may be tried again.
    """

    verdict: Verdict
    reason: str = ""
    retry: bool = False


@dataclass(frozen=True, slots=True)
class _Gate:
    """One limit: so many calls over it, of which such a share is allowed."""

    over: int
    calls: int
    allowed: float
    reason: str

    @property
    def suspicious(self) -> bool:
        return self.over > self.allowed * self.calls

    def exceeded(self, chance: float) -> bool:
        return chance_of_at_least(self.over, self.calls, self.allowed) < chance


def health(epoch: str, family: str, version: str, counts: Iterable[Counts]) -> Health | None:
    """Return what a release has done in a life of the runtime, None if no file says it.

    A candidate is not counted before the switch, so the counts of its open file are since then.
    """
    open_files = [
        count
        for count in counts
        if not count.closed
        and (count.label.epoch, count.label.family, count.label.version) == (epoch, family, version)
    ]
    if not open_files:
        return None
    (count, *_) = open_files
    return Health(count.requests, count.errors[ErrorKind.BACKEND], count.latency_us)


def judge(
    seen: Health | None,
    previous: Health | None,
    limits: Acceptance,
    *,
    elapsed_s: float,
    probation_s: float,
) -> Judgement:
    """Judge a candidate.

    Args:
        seen: the candidate since the switch; None if its counts cannot be read.
        previous: the release before it; None if there is none, or its counts cannot be read.
        limits: the candidate's.
        elapsed_s: time since the switch.
        probation_s: how long it is watched.
    """
    over = elapsed_s >= probation_s
    patient = elapsed_s < PATIENCE * probation_s
    if seen is None:
        return Judgement(Verdict.GO_ON) if not over or patient else _UNKNOWN
    gates, remarks = _gates(seen, previous, limits)
    chance = _CHANCE_AT_THE_END if over else _CHANCE_AT_A_LOOK
    for gate in gates:
        if gate.exceeded(chance):
            return Judgement(Verdict.ROLL_BACK, gate.reason)
    suspicious = [gate.reason for gate in gates if gate.suspicious]
    if not over or (suspicious and patient):
        return Judgement(Verdict.GO_ON)
    remarks += [f"{reason}, which may be chance" for reason in suspicious]
    return Judgement(Verdict.COMMIT, "; ".join(remarks))


_UNKNOWN = Judgement(
    Verdict.ROLL_BACK,
    "its calls could not be counted, so nobody knows whether it serves: is there room in run/?",
    retry=True,
)


def _gates(
    seen: Health, previous: Health | None, limits: Acceptance
) -> tuple[list[_Gate], list[str]]:
    """Return the limits that can be judged, and why the others cannot."""
    gates = [_error_gate(seen, limits.max_error_rate, "")]
    remarks = []
    before = previous.requests if previous is not None else 0
    if limits.max_error_rate_increase is not None:
        if previous is None or before < MIN_SAMPLE:
            remarks.append(f"its error rate was not compared: {_few(before, 'previous')}")
        else:
            plausible = highest_plausible_share(previous.errors, before, _Z)
            gates.append(
                _error_gate(
                    seen,
                    min(1.0, plausible + limits.max_error_rate_increase),
                    f", {previous.errors} of {before} before it",
                )
            )
    if limits.max_p95_ratio is not None:
        answered = previous.latency_us.count if previous is not None else 0
        if previous is None or answered < MIN_SAMPLE:
            remarks.append(f"its p95 was not compared: {_few(answered, 'previous')}")
        elif seen.latency_us.count < MIN_SAMPLE:
            remarks.append(f"its p95 was not compared: {_few(seen.latency_us.count, 'new')}")
        else:
            gates.append(_latency_gate(seen.latency_us, previous.latency_us, limits.max_p95_ratio))
    return gates, remarks


def _error_gate(seen: Health, allowed: float, compared: str) -> _Gate:
    reason = (
        f"{seen.errors} of {seen.requests} calls failed in the backend during the probation"
        f"{compared}, allowed are {allowed:.2%}"
    )
    return _Gate(seen.errors, seen.requests, allowed, reason)


def _latency_gate(seen: Histogram, previous: Histogram, ratio: float) -> _Gate:
    limit_us = ratio * highest_plausible_quantile(previous.buckets, _P95, _Z)
    slow = certainly_above(seen.buckets, limit_us)
    p95_ms, before_ms = ((found.quantile(_P95) or math.nan) / 1000 for found in (seen, previous))
    reason = (
        f"its p95 is {p95_ms:.2f} ms, {before_ms:.2f} ms was the previous release's: {slow} of "
        f"{seen.count} calls took more than {limit_us / 1000:.2f} ms, {ratio:g} times what that "
        "may have been"
    )
    return _Gate(slow, seen.count, 1 - _P95, reason)


def _few(calls: int, whose: str) -> str:
    return f"{calls} calls of the {whose} release, {MIN_SAMPLE} are needed"

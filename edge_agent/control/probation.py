"""The verdict on a candidate that serves: pure, from counters and time."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from edge_agent.control.journal import UpdateRecord
from edge_agent.counters import Counts
from fleet_protocol.messages import ErrorKind

_EARLY_SAMPLE = 100
"""Requests that a verdict before the end assumes at least: one unlucky call among the first few is
no verdict, errors that even so many requests could not dilute are."""


class Verdict(Enum):
    """What becomes of the candidate."""

    GO_ON = "go on"
    COMMIT = "commit"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Health:
    """What the candidate has done since the switch."""

    requests: int
    errors: int


def health(record: UpdateRecord, counts: Iterable[Counts]) -> Health:
    """Return the health of a record's candidate from the live counter files.

    A candidate is not counted before the switch, so the counts of its open file are since then.
    """
    wanted = (record.epoch, record.family, record.version)
    requests = errors = 0
    for count in counts:
        label = count.label
        if not count.closed and (label.epoch, label.family, label.version) == wanted:
            requests += count.requests
            errors += count.errors[ErrorKind.BACKEND]
    return Health(requests, errors)


def verdict(
    seen: Health, *, max_error_rate: float, elapsed_s: float, probation_s: float
) -> Verdict:
    """Judge a candidate.

    ``max_error_rate`` is the share of calls that may fail in the backend, ``elapsed_s`` the time
    since the switch.
    """
    over = elapsed_s >= probation_s
    sample = max(seen.requests, 1) if over else max(seen.requests, _EARLY_SAMPLE)
    if seen.errors > max_error_rate * sample:
        return Verdict.ROLL_BACK
    return Verdict.COMMIT if over else Verdict.GO_ON

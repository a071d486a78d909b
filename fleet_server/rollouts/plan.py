"""What an operator asks for: the plan of a rollout. It never changes once the rollout exists.

Shares are fractions from 0 to 1, times are seconds. Stages are cumulative: ``percent=10`` means
"until one device in ten has it", and the last stage is ``percent=100``.
"""

import math
from enum import StrEnum

import msgspec

from fleet_protocol.delivery import Terms, Window


class OnFailure(StrEnum):
    """What happens to the devices that have the release when the engine stops the rollout."""

    ROLL_BACK = "roll_back"
    """They get what they ran before."""
    STOP = "stop"
    """They keep it until an operator decides."""


class Inconclusive(StrEnum):
    """What a gate does when too few devices had traffic for a comparison."""

    CONTINUE = "continue"
    STOP = "stop"


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage: how far it goes, and how long it is watched.

    Attributes:
        percent: of all members, cumulative; exactly one of percent and count is set.
        count: of members, cumulative.
        soak_s: from the last device that settled to the opening of the gate.
    """

    percent: float | None = None
    count: int | None = None
    soak_s: float = 0.0

    def end(self, members: int) -> int:
        """Return how many members have the release once this stage is done."""
        if self.count is not None:
            return min(self.count, members)
        return min(members, math.ceil(members * (self.percent or 0.0) / 100 - 1e-9))


class ComparisonPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How devices on the new release are compared with those on the old one.

    Attributes:
        alpha: chance, over the whole rollout, that a release no worse than the margins is stopped.
        error_margin: by how much the share of failed calls may rise, absolute.
        latency_margin: by how much latency may rise, relative.
        quantiles: of latency, each compared.
        min_requests: calls that a device needs in a period to be compared.
        period_s: length of the periods before and after the change that are read; of each, at
            most the newest 60 windows with calls, or ``min_requests`` if that is more, up to 500.
        patience_s: how long a gate waits for traffic before it counts as inconclusive.
    """

    alpha: float = 0.05
    error_margin: float = 0.01
    latency_margin: float = 0.10
    quantiles: tuple[float, ...] = (0.5, 0.95)
    min_requests: int = 50
    period_s: float = 1800.0
    patience_s: float = 900.0
    when_inconclusive: Inconclusive = Inconclusive.CONTINUE


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole plan.

    Attributes:
        stages: in order; none until the devices are known, for the usual ones.
        min_samples: devices that must have answered before a stage is judged.
        failure_threshold: share of a stage's devices that may fail. Silence counts as failure.
        timeout_threshold: if set, silent devices are held against this share instead.
        timeout_s: time with an open window in which a device must have committed.
        max_in_flight: the disruption budget: devices that change at the same time.
        window: of maintenance; None for any time.
        max_bytes_per_s: the most that each device takes from its network for the download.
        download_ahead: devices of an open stage fetch the release before it is their turn.
        comparison: None to judge by what devices say of themselves alone.
    """

    family: str
    version: str
    stages: tuple[Stage, ...]
    min_samples: int = 1
    failure_threshold: float = 0.05
    timeout_threshold: float | None = None
    timeout_s: float = 3600.0
    max_in_flight: int = 10
    window: Window | None = None
    max_bytes_per_s: int | None = None
    download_ahead: bool = False
    comparison: ComparisonPolicy | None = ComparisonPolicy()
    on_failure: OnFailure = OnFailure.ROLL_BACK


HELD_MS = 253_402_300_799_000
"""The end of the year 9999: what is activated then is not activated until it is told again."""


def terms(plan: Plan, *, held: bool) -> Terms:
    """Return the terms of delivery that a device of the rollout gets.

    Args:
        plan: the rollout's.
        held: it fetches the release now and activates it when it is told so.
    """
    return Terms(
        activate_not_before_ms=HELD_MS if held else 0,
        window=plan.window,
        max_bytes_per_s=plan.max_bytes_per_s,
    )


def encode(plan: Plan) -> str:
    """Return a plan as stored."""
    return msgspec.json.encode(plan).decode()


def decode(stored: str) -> Plan:
    """Read a stored plan."""
    return msgspec.json.decode(stored, type=Plan)

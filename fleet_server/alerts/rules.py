"""Rules: which signal of which devices is an alert, and those that every tenant has by default.

A default rule is there without a row; a tenant that stores a rule of the same name has its own
instead, switched off or with other limits, and gets the default back when it removes it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fleet_server.alerts.engine import Condition
from fleet_server.devices.health import SILENT_AFTER_MS
from fleet_server.devices.selector import Selector
from fleet_server.errors import RefusedError

MAX_RULES = 100
"""Of a tenant, beside the defaults."""

MAX_WINDOW_S = 6 * 3600
_WEEK_S = 7 * 86_400


class Signal(StrEnum):
    """What a rule looks at; the unit is in the name."""

    SILENCE_S = "silence_s"
    """Since the device was last heard of."""
    RUNTIME_DOWN = "runtime_down"
    """1 while the device says that its runtime does not run, else 0."""
    ALARMS = "alarms"
    """How many alarms the device reports."""
    P95_MS = "p95_ms"
    """Of a family's calls in the window, from merged histograms."""
    ERROR_RATE = "error_rate"
    """Share of a family's calls in the window that failed in the runtime."""
    TEMPERATURE_CELSIUS = "temperature_celsius"
    """Of the hottest zone, in the newest telemetry."""
    OUTBOX_DROPS = "outbox_drops"
    """How often in the window the device said that telemetry was dropped."""
    CERTIFICATE_DAYS = "certificate_days"
    """Until the device's certificate expires; few are bad."""


class Severity(StrEnum):
    """How much it matters, in this order."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Higher for what matters more."""
        return list(Severity).index(self)


PER_FAMILY = frozenset({Signal.P95_MS, Signal.ERROR_RATE})
FALLING = frozenset({Signal.CERTIFICATE_DAYS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        resolves_at: the other end of the hysteresis band, on the good side of ``fires_at``.
        for_s: how long the signal has to be bad before the alert fires.
        resolve_for_s: how long it has to be good before the alert resolves.
        window_s: how far back signals look that are counted over time.
        min_calls: with fewer calls in the window nothing is known.
        family: only this model family, for signals of families.
    """

    name: str
    signal: Signal
    fires_at: float
    resolves_at: float
    for_s: float = 0.0
    resolve_for_s: float = 0.0
    window_s: float = 600.0
    min_calls: int = 50
    selector: Selector = field(default_factory=Selector)
    family: str | None = None
    severity: Severity = Severity.WARNING
    enabled: bool = True
    description: str = ""
    default: bool = False

    @property
    def condition(self) -> Condition:
        """What the engine needs of it."""
        return Condition(
            fires_at=self.fires_at,
            resolves_at=self.resolves_at,
            for_ms=round(self.for_s * 1000),
            resolve_for_ms=round(self.resolve_for_s * 1000),
            falling=self.signal in FALLING,
        )

    def check(self) -> None:
        """Accept a rule that makes sense.

        Raises:
            RefusedError: it does not; the message says which field and why.
        """
        if not (math.isfinite(self.fires_at) and math.isfinite(self.resolves_at)):
            raise RefusedError("fires_at, resolves_at: use finite numbers")
        distance = self.fires_at - self.resolves_at
        if (-distance if self.signal in FALLING else distance) < 0:
            side = "above" if self.signal in FALLING else "below"
            raise RefusedError(
                f"resolves_at: {self.signal} resolves at or {side} fires_at ({self.fires_at:g}), "
                f"not at {self.resolves_at:g}"
            )
        if self.family is not None and self.signal not in PER_FAMILY:
            raise RefusedError(
                f"family: {self.signal} belongs to a device; only "
                f"{' and '.join(sorted(PER_FAMILY))} belong to a family"
            )
        for limited, value, most in (
            ("for_s", self.for_s, _WEEK_S),
            ("resolve_for_s", self.resolve_for_s, _WEEK_S),
            ("window_s", self.window_s, MAX_WINDOW_S),
        ):
            if not 0 <= value <= most:
                raise RefusedError(f"{limited}: use 0 to {most} seconds")


DEFAULTS: tuple[Rule, ...] = (
    Rule(
        name="device-offline",
        signal=Signal.SILENCE_S,
        fires_at=SILENT_AFTER_MS / 1000,
        resolves_at=SILENT_AFTER_MS / 1500,
        resolve_for_s=60,
        severity=Severity.CRITICAL,
        description="The device was not heard of for three times its reporting interval.",
        default=True,
    ),
    Rule(
        name="runtime-down",
        signal=Signal.RUNTIME_DOWN,
        fires_at=1,
        resolves_at=1,
        for_s=120,
        resolve_for_s=60,
        severity=Severity.CRITICAL,
        description="The device answers no inference calls.",
        default=True,
    ),
    Rule(
        name="device-alarm",
        signal=Signal.ALARMS,
        fires_at=1,
        resolves_at=1,
        for_s=60,
        resolve_for_s=300,
        description="The device itself asks for attention; its page says why.",
        default=True,
    ),
    Rule(
        name="error-rate",
        signal=Signal.ERROR_RATE,
        fires_at=0.05,
        resolves_at=0.02,
        for_s=300,
        resolve_for_s=300,
        description="More than 5 % of a family's calls fail in the runtime.",
        default=True,
    ),
    Rule(
        name="temperature",
        signal=Signal.TEMPERATURE_CELSIUS,
        fires_at=85,
        resolves_at=80,
        for_s=300,
        resolve_for_s=300,
        description="Most boards throttle here, and latencies rise.",
        default=True,
    ),
    Rule(
        name="outbox-drops",
        signal=Signal.OUTBOX_DROPS,
        fires_at=1,
        resolves_at=1,
        window_s=3600,
        description="Telemetry was lost: the device was cut off for long, or its disk is full.",
        default=True,
    ),
    Rule(
        name="certificate-expiry",
        signal=Signal.CERTIFICATE_DAYS,
        fires_at=14,
        resolves_at=15,
        description="The device should have renewed it by now; when it expires it is shut out.",
        default=True,
    ),
)
"""There is none for latency: what is slow depends on the model."""


def with_defaults(stored: Iterable[Rule]) -> Mapping[str, Rule]:
    """Return the rules of a tenant by name, in the order of names."""
    rules = {rule.name: rule for rule in DEFAULTS} | {rule.name: rule for rule in stored}
    return dict(sorted(rules.items()))

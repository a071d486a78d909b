"""What is known of one device, and what a rule reads from it. Pure.

`fleet_server.alerts.reading` fetches it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fleet_protocol.histogram import merged
from fleet_protocol.messages import ErrorKind, ModelWindow
from fleet_server.alerts.rules import Rule, Signal
from fleet_server.devices.selector import Attributes

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Calls:
    """What one family did in one window of telemetry."""

    start_ms: int
    counts: ModelWindow


@dataclass(frozen=True, slots=True)
class Reading:
    """A temperature, in degrees Celsius."""

    start_ms: int
    celsius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One device.

    Attributes:
        in_service: neither decommissioned nor revoked; of others nothing is expected.
        alarms: how many it reports; None before its first report.
        families: those that it says it runs.
        drops_ms: when it was heard that telemetry was dropped.
        temperature: in its newest window of telemetry.
    """

    device_id: str
    tenant: str
    attributes: Attributes
    in_service: bool
    last_seen_ms: int | None
    runtime_up: bool | None
    alarms: int | None
    certificate_expires_ms: int
    families: frozenset[str]
    calls: Sequence[Calls] = ()
    drops_ms: Sequence[int] = ()
    temperature: Reading | None = None


def values(
    rule: Rule, device: Evidence, *, now_ms: int, watched_since_ms: int
) -> dict[str, float | None]:
    """Return what a rule observes: a value by family, or by "" for the device itself.

    What is absent is not watched; None stands for what is watched and not known now.
    """
    if not (rule.enabled and device.in_service and rule.selector.holds(device.attributes)):
        return {}
    if rule.signal in {Signal.P95_MS, Signal.ERROR_RATE}:
        families = device.families if rule.family is None else device.families & {rule.family}
        return {family: _of_calls(rule, device, family, now_ms) for family in sorted(families)}
    return {"": _of_device(rule, device, now_ms, watched_since_ms)}


def _of_calls(rule: Rule, device: Evidence, family: str, now_ms: int) -> float | None:
    since_ms = now_ms - rule.window_s * 1000
    found = [
        each.counts
        for each in device.calls
        if each.counts.family == family and each.start_ms >= since_ms
    ]
    requests = sum(each.requests for each in found)
    if requests < max(1, rule.min_calls):
        return None
    if rule.signal is Signal.ERROR_RATE:
        return sum(each.errors.get(ErrorKind.BACKEND, 0) for each in found) / requests
    p95_us = merged(each.latency_us for each in found).quantile(0.95)
    return None if p95_us is None else p95_us / 1000


def _of_device(rule: Rule, device: Evidence, now_ms: int, watched_since_ms: int) -> float | None:
    match rule.signal:
        case Signal.SILENCE_S:
            return _silence_s(rule, device, now_ms, watched_since_ms)
        case Signal.RUNTIME_DOWN:
            return None if device.runtime_up is None else float(not device.runtime_up)
        case Signal.ALARMS:
            return device.alarms
        case Signal.TEMPERATURE_CELSIUS:
            reading = device.temperature
            fresh = reading is not None and reading.start_ms >= now_ms - rule.window_s * 1000
            return reading.celsius if reading is not None and fresh else None
        case Signal.OUTBOX_DROPS:
            since_ms = now_ms - rule.window_s * 1000
            return sum(at_ms >= since_ms for at_ms in device.drops_ms)
        case _:
            return (device.certificate_expires_ms - now_ms) / _DAY_MS


def _silence_s(rule: Rule, device: Evidence, now_ms: int, watched_since_ms: int) -> float | None:
    """Return how long a device was silent while somebody listened.

    After the servers were down every device looks silent. Until one could have been heard for as
    long as the rule asks for, nothing is known of it.
    """
    if device.last_seen_ms is None:
        return None
    listened_s = (now_ms - watched_since_ms) / 1000
    if device.last_seen_ms < watched_since_ms and listened_s < rule.fires_at:
        return None
    return max(0, now_ms - device.last_seen_ms) / 1000

"""What follows from the observations of some devices and their open alerts. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet_protocol.counting import counted
from fleet_server.alerts import engine, evidence
from fleet_server.alerts.engine import State, Step
from fleet_server.alerts.evidence import Evidence
from fleet_server.alerts.rules import Rule, Signal


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What an alert is about.

    Attributes:
        family: "" for the device itself.
    """

    device_id: str
    rule: str
    family: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What a rule saw of a subject; None where nothing is known."""

    rule: Rule
    value: float | None


def observations(
    devices: Iterable[Evidence],
    rules: Mapping[str, Mapping[str, Rule]],
    *,
    now_ms: int,
    watched_since_ms: int,
) -> dict[Subject, Observation]:
    """Return what the rules of each device's tenant see.

    Args:
        devices: what is known of them.
        rules: by tenant and name.
        now_ms: when it is.
        watched_since_ms: see `engine.step`.
    """
    return {
        Subject(device.device_id, rule.name, family): Observation(rule, value)
        for device in devices
        for rule in rules[device.tenant].values()
        for family, value in evidence.values(
            rule, device, now_ms=now_ms, watched_since_ms=watched_since_ms
        ).items()
    }


def decide(
    observed: Mapping[Subject, Observation],
    opened: Mapping[Subject, State],
    *,
    now_ms: int,
    watched_since_ms: int,
) -> Iterator[tuple[Subject, Step]]:
    """Yield the steps that change something, in the order of their subjects."""
    for subject in sorted(observed.keys() | opened.keys()):
        state = opened.get(subject)
        seen = observed.get(subject)
        if seen is not None:
            made = engine.step(
                seen.rule.condition,
                state,
                seen.value,
                now_ms=now_ms,
                watched_since_ms=watched_since_ms,
            )
        elif state is not None:
            made = engine.end(state, now_ms=now_ms)
        if made.state != state:
            yield subject, made


_UNITS: Mapping[Signal, tuple[Callable[[float], str], str]] = {
    Signal.SILENCE_S: ("was not heard of for {:.0f} s".format, "{:.0f} s"),
    Signal.RUNTIME_DOWN: ("says that its runtime does not run".format, ""),
    Signal.ALARMS: (lambda value: f"reports {counted(round(value), 'alarm')}", "{:.0f}"),
    Signal.P95_MS: ("has a p95 latency of {:.2f} ms".format, "{:.2f} ms"),
    Signal.ERROR_RATE: ("fails on {:.1%} of calls".format, "{:.1%}"),
    Signal.TEMPERATURE_CELSIUS: ("is at {:.1f} degrees Celsius".format, "{:.1f}"),
    Signal.OUTBOX_DROPS: (
        lambda value: f"dropped telemetry {counted(round(value), 'time')}",
        "{:.0f}",
    ),
    Signal.CERTIFICATE_DAYS: (
        "has a certificate that expires in {:.1f} days".format,
        "{:.1f} days",
    ),
}


def sentence(subject: Subject, seen: Observation) -> str:
    """Say what was seen, and what the limit is."""
    said, limit = _UNITS[seen.rule.signal]
    who = f"{subject.family} on {subject.device_id}" if subject.family else subject.device_id
    what = "is not known" if seen.value is None else said(seen.value)
    return f"{who} {what}" + (f" (limit {limit.format(seen.rule.fires_at)})" if limit else "")

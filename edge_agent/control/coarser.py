"""Merging telemetry windows into coarser ones: pure, and no count is lost in it."""

from collections.abc import Iterable

from fleet_protocol import histogram
from fleet_protocol.messages import ErrorKind, ModelWindow, SystemWindow, TelemetryWindow


def coarser_window(first: TelemetryWindow, second: TelemetryWindow) -> TelemetryWindow:
    """Return the window that stands for two that follow each other in one stream."""
    return TelemetryWindow(
        stream=second.stream,
        sequence=second.sequence,
        covers_from=first.covers_from,
        start_ms=first.start_ms,
        end_ms=second.end_ms,
        models=summed_models([*first.models, *second.models]),
        system=_joined_system(first, second),
    )


def summed_models(windows: Iterable[ModelWindow]) -> list[ModelWindow]:
    """Return one window for each release among the given ones, with the sums of its counts."""
    sums: dict[tuple[str, str, str], ModelWindow] = {}
    for window in windows:
        key = (window.family, window.version, window.variant)
        sums[key] = _sum(sums[key], window) if key in sums else window
    return list(sums.values())


def _sum(one: ModelWindow, other: ModelWindow) -> ModelWindow:
    errors: dict[ErrorKind, int] = dict(one.errors)
    for kind, count in other.errors.items():
        errors[kind] = errors.get(kind, 0) + count
    classes = dict(one.classes)
    for label, count in other.classes.items():
        classes[label] = classes.get(label, 0) + count
    return ModelWindow(
        family=one.family,
        version=one.version,
        variant=one.variant,
        requests=one.requests + other.requests,
        errors=errors,
        latency_us=histogram.merged([one.latency_us, other.latency_us]),
        classes=classes,
    )


def _joined_system(first: TelemetryWindow, second: TelemetryWindow) -> SystemWindow:
    one, other = first.system, second.system
    temperatures = [
        value for value in (one.temperature_celsius, other.temperature_celsius) if value is not None
    ]
    return SystemWindow(
        cpu_percent=_mean_cpu(first, second),
        memory_used_bytes=_newer(one.memory_used_bytes, other.memory_used_bytes),
        memory_total_bytes=_newer(one.memory_total_bytes, other.memory_total_bytes),
        runtime_resident_bytes=_newer(one.runtime_resident_bytes, other.runtime_resident_bytes),
        temperature_celsius=max(temperatures, default=None),
    )


def _newer(one: int | None, other: int | None) -> int | None:
    return one if other is None else other


def _mean_cpu(first: TelemetryWindow, second: TelemetryWindow) -> float | None:
    measured = [
        (window.system.cpu_percent, max(window.end_ms - window.start_ms, 1))
        for window in (first, second)
        if window.system.cpu_percent is not None
    ]
    if not measured:
        return None
    total_ms = sum(length for _, length in measured)
    return min(100.0, sum(percent * length for percent, length in measured) / total_ms)

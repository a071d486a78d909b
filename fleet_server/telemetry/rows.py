"""Windows and events as rows of their tables."""

import msgspec

from fleet_protocol.messages import Event, TelemetryWindow
from fleet_server.storable import storable

Row = dict[str, object]


def of_window(device_id: str, window: TelemetryWindow, *, received_ms: int) -> Row:
    """Return the row of a window, without its models."""
    return {
        "device_id": device_id,
        "stream": window.stream,
        "sequence": window.sequence,
        "covers_from": window.covers_from,
        "start_ms": window.start_ms,
        "end_ms": window.end_ms,
        "received_ms": received_ms,
        "system": msgspec.json.encode(window.system).decode(),
    }


def of_models(window_id: int, device_id: str, window: TelemetryWindow) -> list[Row]:
    """Return the rows of the releases that were at work in a window."""
    return [
        {
            "window_id": window_id,
            "device_id": device_id,
            "start_ms": window.start_ms,
            "family": model.family,
            "version": model.version,
            "variant": storable(model.variant),
            "requests": model.requests,
            "counts": msgspec.json.encode(model).decode(),
        }
        for model in window.models
    ]


def of_event(device_id: str, event: Event, *, received_ms: int) -> Row:
    """Return the row of an event."""
    return {
        "device_id": device_id,
        "stream": event.stream,
        "sequence": event.sequence,
        "at_ms": event.at_ms,
        "received_ms": received_ms,
        "kind": event.kind.value,
        "detail": storable(event.detail),
        "family": event.family,
        "version": event.version,
        "state": event.state.value if event.state else None,
    }

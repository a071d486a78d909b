"""Messages of devices, as they say them."""

from fleet_protocol import histogram
from fleet_protocol.messages import (
    ErrorKind,
    Event,
    EventKind,
    ModelWindow,
    TelemetryWindow,
)
from fleet_server.telemetry.uplink import Content, Uplink

STREAM = "telemetry-0123456789abcdef"


def window(
    sequence: int, *, covers_from: int | None = None, stream: str = STREAM, version: str = "1.0.0"
) -> TelemetryWindow:
    model = ModelWindow(
        family="a",
        version=version,
        variant="int8",
        requests=10,
        errors={ErrorKind.BACKEND: 1},
        latency_us=histogram.of_values([100.0 * sequence] * 10),
        classes={"shoe": 9},
    )
    return TelemetryWindow(
        stream=stream,
        sequence=sequence,
        covers_from=covers_from or sequence,
        start_ms=sequence * 1000,
        end_ms=sequence * 1000 + 999,
        models=[model],
    )


def event(sequence: int, detail: str = "it happened") -> Event:
    return Event(
        stream="event-0123456789abcdef",
        sequence=sequence,
        covers_from=sequence,
        at_ms=sequence,
        kind=EventKind.UPDATE_STATE,
        detail=detail,
        family="a",
        version="1.0.0",
    )


def from_device(content: Content, device_id: str = "cam-1", *, retained: bool = False) -> Uplink:
    return Uplink(device_id, content, retained)

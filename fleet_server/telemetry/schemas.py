"""What the routes say about telemetry."""

from pydantic import BaseModel, JsonValue

from fleet_server.paging import Cursor


class Latency(BaseModel):
    """Of all calls, from merged histograms; null while nothing is counted."""

    count: int
    mean_us: float | None
    p50_us: float | None
    p95_us: float | None
    p99_us: float | None


class ReleaseSummary(BaseModel):
    """What one release did."""

    family: str
    version: str
    devices: int
    windows: int
    requests: int
    errors: dict[str, int]
    variants: dict[str, int]
    """Requests by variant."""
    classes: dict[str, int]
    latency: Latency


class FleetSummary(BaseModel):
    """Sums over all devices, of windows that started in [from_ms, to_ms)."""

    from_ms: int
    to_ms: int
    windows: int
    windows_covered: int
    """Windows that the devices closed; more than ``windows`` where full outboxes merged some."""
    releases: list[ReleaseSummary]


class StreamView(BaseModel):
    """How far one stream of a device has come."""

    stream: str
    acked: int
    ahead: int
    """Numbers received beyond a gap."""


class DeviceSummary(FleetSummary):
    """The same for one device."""

    device_id: str
    streams: list[StreamView]


class WindowView(BaseModel):
    """One stored window."""

    id: int
    stream: str
    sequence: int
    covers_from: int
    start_ms: int
    end_ms: int
    received_ms: int
    system: JsonValue
    models: list[JsonValue]


class WindowPage(BaseModel):
    """Windows of one device in the order in which they were stored."""

    windows: list[WindowView]
    next_after: Cursor | None


class EventView(BaseModel):
    """One event."""

    id: int
    stream: str
    sequence: int
    at_ms: int
    received_ms: int
    kind: str
    detail: str
    family: str | None
    version: str | None
    state: str | None


class EventPage(BaseModel):
    """Events of one device, in the order in which they were stored or against it."""

    events: list[EventView]
    next_after: Cursor | None


class EventCount(BaseModel):
    """How many events of one device are stored."""

    events: int
    is_capped: bool
    """There may be more: counting ended here, at 10,000."""

"""What a batch of messages changes: worked out in memory, so that the database is asked once.

Messages count in the order in which they came; what came twice within the batch is found here as
well, because each takes its numbers from the same state. Nothing here reads or writes anything.
"""

import logging
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from fleet_protocol.messages import Event, Presence, Reported, TelemetryWindow
from fleet_server.telemetry.reception import StreamState, Verdict
from fleet_server.telemetry.uplink import Uplink

logger = logging.getLogger(__name__)

StreamKey = tuple[str, str]
"""A device and the name of one of its streams."""

_COMPLAINTS = {
    Verdict.OVERLAP: "telemetry_overlaps",
    Verdict.TOO_FAR: "telemetry_too_far_ahead",
}


@dataclass(slots=True, kw_only=True)
class Intake:
    """Collects what is to be written.

    Attributes:
        now_ms: when the batch is stored.
        known: the devices from which messages are taken.
        streams: what was received of each stream that the batch speaks of; new ones are added.
        windows: those whose numbers nobody had yet, with their devices.
        events: the same.
        online: the last word of each device on its presence.
        reports: the last report of each device.
        alive: devices that spoke themselves, where the broker did not only remember.
        counts: how many messages ended how.
    """

    now_ms: int
    known: AbstractSet[str]
    streams: dict[StreamKey, StreamState]
    windows: list[tuple[str, TelemetryWindow]] = field(default_factory=list)
    events: list[tuple[str, Event]] = field(default_factory=list)
    online: dict[str, bool] = field(default_factory=dict)
    reports: dict[str, Reported] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def take(self, uplink: Uplink) -> None:
        """Take one message in."""
        device_id, content = uplink.device_id, uplink.content
        if device_id not in self.known:
            self.counts["unknown_device"] += 1
            logger.warning("uplink_of_unknown_device", extra={"device": device_id})
            return
        if not uplink.retained:
            self.alive.add(device_id)
        match content:
            case Presence():
                self.online[device_id] = content.online
            case Reported():
                self.reports[device_id] = content
            case TelemetryWindow():
                if self._is_fresh(device_id, content):
                    self.windows.append((device_id, content))
            case Event():
                if self._is_fresh(device_id, content):
                    self.events.append((device_id, content))
        self.counts["taken"] += 1

    def _is_fresh(self, device_id: str, content: TelemetryWindow | Event) -> bool:
        state = self.streams.setdefault((device_id, content.stream), StreamState())
        verdict, given_up = state.take(content.covers_from, content.sequence, now_ms=self.now_ms)
        self.counts[verdict.name.lower()] += 1
        if given_up is not None:
            self.counts["gaps_given_up"] += 1
            logger.error(
                "telemetry_gap_given_up",
                extra={
                    "device": device_id,
                    "stream": content.stream,
                    "first": given_up[0],
                    "last": given_up[1],
                },
            )
        if verdict in _COMPLAINTS:
            logger.warning(
                _COMPLAINTS[verdict],
                extra={
                    "device": device_id,
                    "stream": content.stream,
                    "covers_from": content.covers_from,
                    "sequence": content.sequence,
                    "acked": state.reception.acked,
                },
            )
        return verdict is Verdict.FRESH

"""Tells the fleet of damaged files: an alarm while one is damaged, an event at both its ends."""

import sqlite3
from collections.abc import Mapping

import msgspec

from edge_agent.control import facts
from edge_agent.control.blob_audit import Damage
from edge_agent.control.clock import Clock
from edge_agent.control.outbox import EventDraft, Outbox
from fleet_protocol.messages import EventKind

_RAISED = "damaged_files"
_MAX_TOLD = 2000


class DamageAlarms:
    """Remembers of which files the fleet has been told; durable."""

    def __init__(self, *, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    def look(self, damaged: Mapping[str, Damage]) -> tuple[str, ...]:
        """Return an alarm about damaged files, if there are any."""
        told = "; ".join(str(damage) for _, damage in sorted(damaged.items()))
        return (told[:_MAX_TOLD],) if told else ()

    def note(self, connection: sqlite3.Connection, damaged: Mapping[str, Damage]) -> None:
        """Make events of what began and what ended (in the caller's transaction)."""
        raised = msgspec.json.decode(facts.get(connection, _RAISED) or "{}", type=dict[str, str])
        now = {family: damage.release.version for family, damage in damaged.items()}
        if now == raised:
            return
        facts.put(connection, _RAISED, msgspec.json.encode(now).decode())
        for family, version in raised.items():
            if now.get(family) != version:
                detail = f"the file of {family} {version} is whole again, or no longer needed"
                self._tell(connection, EventKind.MODEL_REPAIRED, family, version, detail)
        for family, version in now.items():
            if raised.get(family) != version:
                detail = str(damaged[family])
                self._tell(connection, EventKind.MODEL_DAMAGED, family, version, detail)

    def _tell(
        self,
        connection: sqlite3.Connection,
        kind: EventKind,
        family: str,
        version: str,
        detail: str,
    ) -> None:
        draft = EventDraft(
            at_ms=self._clock.now_ms(), kind=kind, detail=detail, family=family, version=version
        )
        self._outbox.append_event(connection, draft)

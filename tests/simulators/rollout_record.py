"""The recorded history of a rollout, played back: does it hold together, and what does it say?

It is read from the API as an operator reads it, and checked against the rules that the engine
promises, by other means than the engine's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.state import Kind

Json = dict[str, Any]
_BEGINS = {Kind.ACTIVATED, Kind.RETURNED}
_NOT_IN_FLIGHT = {Kind.RECALLED}


@dataclass(frozen=True)
class Record:
    """A rollout with all of its decisions, the oldest first, and all of its devices."""

    view: Json
    decisions: Sequence[Json]
    members: Sequence[Json]

    @property
    def status(self) -> str:
        """How it stands."""
        return str(self.view["status"])

    def of(self, kind: Kind) -> list[Json]:
        """Return the decisions of one kind."""
        return [row for row in self.decisions if row["kind"] == kind]

    def stage_of(self) -> Mapping[str, int]:
        """Return the stage of each device, counted from 1."""
        return {member["device_id"]: member["stage"] for member in self.members}

    def first_stage(self) -> set[str]:
        """Return the devices that come first."""
        return {name for name, stage in self.stage_of().items() if stage == 1}

    def seconds_until(self, kind: Kind) -> float:
        """Return the time from the first device that was told to the first such decision."""
        first, then = (int(self.of(each)[0]["at_ms"]) for each in (Kind.ACTIVATED, kind))
        return (then - first) / 1000


@dataclass
class _Replay:
    """The state that follows from the decisions alone."""

    stage_of: Mapping[str, int]
    budget: int
    open_stages: int = 0
    most: int = 0
    in_flight: set[str] = field(default_factory=set)

    def take(self, row: Json) -> None:
        kind, devices = Kind(row["kind"]), set(row["devices"])
        if kind is Kind.OPENED_STAGE:
            self.open_stages += 1
        elif kind is Kind.OBSERVED:
            self._observe(row["inputs"]["outcomes"])
        elif kind in _BEGINS:
            assert row["inputs"]["in_flight"] == len(self.in_flight), row
            assert all(self.stage_of[name] <= self.open_stages for name in devices), row
            self.in_flight |= devices
            assert len(self.in_flight) <= self.budget, row
            self.most = max(self.most, len(self.in_flight))
        elif kind in _NOT_IN_FLIGHT:
            self.in_flight -= devices

    def _observe(self, outcomes: Sequence[Json]) -> None:
        for outcome in outcomes:
            assert outcome["state"] in {*MemberState}, outcome
            assert outcome["detail"], outcome
            self.in_flight.discard(outcome["device"])


def check(record: Record) -> int:
    """Check a record from its first to its last decision.

    Returns:
        The most devices that were changing at the same time.

    Raises:
        AssertionError: it contradicts itself, the plan or the rules.
    """
    numbers = [row["number"] for row in record.decisions]
    assert numbers == list(range(1, len(numbers) + 1)), "the history has gaps"
    times = [row["at_ms"] for row in record.decisions]
    assert times == sorted(times), "the history goes back in time"
    replay = _Replay(record.stage_of(), record.view["plan"]["max_in_flight"])
    for row in record.decisions:
        assert row["reason"].endswith("."), row
        assert row["inputs"], row
        replay.take(row)
    assert not replay.in_flight, "it ended while devices were changing"
    return replay.most

"""How many members of a rollout stand where: kept beside the rollout, changed with its members.

Counting a million members takes 0.1 s, and every look needs the counts. So they are stored in the
row of the rollout, in the transaction that raises its revision (`history`). Whoever changes members
raises it from the one that was read, and holds that row to the end: the counts that were read are
those of the members then, and no server waits for another that it would not wait for anyway.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.state import StageCounts

_S = MemberState
_BAD = (_S.FAILED, _S.SILENT)

Place = tuple[int, MemberState, bool]
"""Stage, state, and whether an operator accepted how it ended."""

_Counted = tuple[int, str, bool, int]


def places(counted: Iterable[Sequence[Any]]) -> dict[Place, int]:
    """Return rows of stage, state, whether it was accepted, and members."""
    return {
        (stage, MemberState(state), excused): members for stage, state, excused, members in counted
    }


class Tally:
    """Members by their places."""

    def __init__(self, counts: Mapping[Place, int] | None = None) -> None:
        self._counts = Counter(counts)

    @classmethod
    def decode(cls, stored: str) -> "Tally":
        """Read the stored form."""
        return cls(places(msgspec.json.decode(stored, type=list[_Counted])))

    def encode(self) -> str:
        """Return a JSON list of [stage, state, excused, members]."""
        listed = [(*place, count) for place, count in sorted(self._counts.items()) if count]
        return msgspec.json.encode(listed).decode()

    def add(self, counts: Mapping[Place, int]) -> None:
        """Count members that were not there."""
        self._counts.update(counts)

    def remove(self, counts: Mapping[Place, int]) -> None:
        """Count members no more."""
        self._counts.subtract(counts)

    def excuse(self) -> None:
        """Count those that failed or fell silent as accepted."""
        for stage, state, excused in list(self._counts):
            if state in _BAD and not excused:
                self._counts[stage, state, True] += self._counts.pop((stage, state, excused))

    def stages(self, number: int) -> tuple[StageCounts, ...]:
        """Return how each of so many stages stands."""
        states: Sequence[dict[MemberState, int]] = [defaultdict(int) for _ in range(number)]
        accepted: Sequence[dict[MemberState, int]] = [defaultdict(int) for _ in range(number)]
        for (stage, state, excused), count in self._counts.items():
            if count:
                states[stage][state] += count
                accepted[stage][state] += count if excused else 0
        return tuple(
            StageCounts(
                states=dict(all_of),
                excused_failed=excused_of[_S.FAILED],
                excused_silent=excused_of[_S.SILENT],
            )
            for all_of, excused_of in zip(states, accepted, strict=True)
        )

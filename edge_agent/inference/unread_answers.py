"""Answers that nobody reads: who has to go when they take too much memory. Pure decisions.

An answer may be much larger than its request, and waits in memory until its caller has read it. A
caller who is slow gets the time for it; one who reads nothing at all must not take the memory of
everybody.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

_Caller = TypeVar("_Caller", bound=Hashable)


class UnreadAnswers(Generic[_Caller]):
    """What waits for each caller, as it is looked at now and then."""

    def __init__(self, most_bytes: int) -> None:
        """Nothing waits.

        Args:
            most_bytes: beyond it those who read nothing have to go.
        """
        self._most_bytes = most_bytes
        self._before: dict[_Caller, int] = {}

    def to_be_cut(self, waiting_bytes: Mapping[_Caller, int]) -> list[_Caller]:
        """Return those who have read nothing since the last look, as many as have to go.

        Those for whom most waits go first. While no more than the bound waits, nobody goes.

        Args:
            waiting_bytes: for each caller.
        """
        before, self._before = (
            self._before,
            {caller: size for caller, size in waiting_bytes.items() if size},
        )
        excess = sum(self._before.values()) - self._most_bytes
        leaving: list[_Caller] = []
        for caller, size in sorted(self._before.items(), key=lambda entry: -entry[1]):
            if excess <= 0:
                break
            if size >= before.get(caller, size + 1):
                leaving.append(caller)
                excess -= size
        return leaving

"""Answers that nobody reads: who has to go when others need their memory. Pure decisions.

An answer may be much larger than its request, and waits in memory until its caller has read it. A
caller who is slow gets the time for it; one who reads nothing at all must not keep out everybody
else for as long.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

_Caller = TypeVar("_Caller", bound=Hashable)


class UnreadAnswers(Generic[_Caller]):
    """What waits for each caller, as it is looked at now and then."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._before: dict[_Caller, int] = {}

    def to_be_cut(self, waiting_bytes: Mapping[_Caller, int], wanted_bytes: int) -> list[_Caller]:
        """Return those who have read nothing since the last look, as many as have to go.

        Those for whom most waits go first.

        Args:
            waiting_bytes: for each caller.
            wanted_bytes: that others lacked since the last look.
        """
        before, self._before = self._before, dict(waiting_bytes)
        leaving: list[_Caller] = []
        for caller, size in sorted(waiting_bytes.items(), key=lambda entry: -entry[1]):
            if wanted_bytes <= 0 or not size:
                break
            if size >= before.get(caller, size + 1):
                leaving.append(caller)
                wanted_bytes -= size
        return leaving

"""What of a stream was received: pure arithmetic on sequence numbers.

A device numbers the messages of a stream from 1 without gaps; a message stands for the numbers from
``covers_from`` to ``sequence``. Each number is taken once. The acknowledged number is the highest
below which nothing is missing, so that a device that deletes up to it loses nothing.

A gap can be final: the database is older than what was acknowledged (a restored backup), or a
message is one that this server cannot read. A device sends everything again that is not
acknowledged, oldest first, so when it has sent what lies beyond a gap again and again, for
`PATIENCE_MS`, and never the gap itself, nobody has it any more: the gap is given up, and said to
be, instead of holding the stream for ever.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

import msgspec

MAX_AHEAD = 1024
"""Ranges kept beyond gaps; a device whose gaps are more sends again after the first is filled."""


PATIENCE_MS = 15 * 60_000
STEADY_MS = 3 * 60_000
"""A longer silence of the stream starts the patience anew."""


class Verdict(Enum):
    """What to do with a message."""

    FRESH = auto()
    """Store it."""
    DUPLICATE = auto()
    """It was stored before; acknowledge again."""
    OVERLAP = auto()
    """Part of it was stored before: count its numbers as received, store nothing of it."""
    TOO_FAR = auto()
    """Too many gaps: ignore it for now."""


Span = tuple[int, int]


@dataclass(slots=True)
class Reception:
    """The state of one stream.

    Attributes:
        acked: everything up to and with this number was received.
        ahead: ranges received beyond ``acked``, disjoint, ascending, not touching each other.
    """

    acked: int = 0
    ahead: list[Span] = field(default_factory=list)

    @classmethod
    def decode(cls, *, acked: int, ahead: str) -> "Reception":
        """Read the stored form."""
        return cls(acked, msgspec.json.decode(ahead, type=list[Span]))

    def encode_ahead(self) -> str:
        """Return ``ahead`` as stored."""
        return msgspec.json.encode(self.ahead).decode()

    def offer(self, covers_from: int, sequence: int) -> Verdict:
        """Take a message's numbers and say what to do with the message.

        Raises:
            ValueError: ``covers_from`` lies above ``sequence``.
        """
        if covers_from > sequence:
            raise ValueError(f"covers_from {covers_from} lies above sequence {sequence}")
        taken = self._taken(covers_from, sequence)
        if taken == sequence - covers_from + 1:
            return Verdict.DUPLICATE
        if not taken and len(self.ahead) >= MAX_AHEAD and covers_from > self.acked + 1:
            return Verdict.TOO_FAR
        self._take((covers_from, sequence))
        return Verdict.OVERLAP if taken else Verdict.FRESH

    def give_up_gap(self) -> Span:
        """Call the first gap received; returns its numbers.

        Raises:
            ValueError: there is no gap.
        """
        if not self.ahead:
            raise ValueError("nothing was received beyond a gap")
        gap = (self.acked + 1, self.ahead[0][0] - 1)
        self._take(gap)
        return gap

    def _taken(self, first: int, last: int) -> int:
        """Count which of the numbers were received before."""
        below = max(0, min(self.acked, last) - first + 1)
        return below + sum(
            max(0, min(last, end) - max(first, start) + 1) for start, end in self.ahead
        )

    def _take(self, span: Span) -> None:
        merged: list[Span] = []
        for start, end in sorted([*self.ahead, span]):
            if merged and start <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        while merged and merged[0][0] <= self.acked + 1:
            self.acked = max(self.acked, merged.pop(0)[1])
        self.ahead = merged


@dataclass(slots=True)
class StreamState:
    """A stream as it is stored: what was received, and how long a gap has been holding it.

    Attributes:
        heard_ms: when something of it came last.
        stuck_since_ms: since when the device has only been repeating what lies beyond a gap.
    """

    reception: Reception = field(default_factory=Reception)
    heard_ms: int = 0
    stuck_since_ms: int | None = None

    def take(self, covers_from: int, sequence: int, *, now_ms: int) -> tuple[Verdict, Span | None]:
        """Take a message's numbers.

        Returns:
            What to do with the message, and the numbers that were given up, if any.
        """
        before = self.reception.acked
        verdict = self.reception.offer(covers_from, sequence)
        silence_ms, self.heard_ms = now_ms - self.heard_ms, now_ms
        if self.reception.acked > before or not self.reception.ahead:
            self.stuck_since_ms = None
        elif verdict is Verdict.DUPLICATE and sequence > before:
            if self.stuck_since_ms is None or silence_ms > STEADY_MS:
                self.stuck_since_ms = now_ms
            elif now_ms - self.stuck_since_ms > PATIENCE_MS:
                self.stuck_since_ms = None
                return verdict, self.reception.give_up_gap()
        return verdict, None

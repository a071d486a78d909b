"""What of the outbox is under way on one connection, and what is due: pure, with the time given.

A broker takes messages whether or not a server reads them, so only acknowledgements say that the
server lives, and a fleet that sends all that it has again and again into the void, or to a server
that has just come back, keeps that server down. Therefore:

- What is new goes out once, at once.
- What goes out again is limited to some room, which doubles with each acknowledgement, halves when
  some of it is overdue, and shrinks to one while the server says nothing at all: the oldest, and in
  turns one of the others, in case the server cannot read the oldest (after Jacobson, Congestion
  Avoidance and Control, 1988).
- A connection keeps the order. So what was sent before a message of its stream that is acknowledged
  by now, and is not, was lost, and is due without waiting for a timer (after RACK, RFC 8985).
- When the server is heard otherwise, it may have come back: what has had no answer for a while is
  asked for with one message at once, and the acknowledgement of that brings the rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

MOST = 64
_FIRST_ROOM = 8
_ANSWER_S = 2.0
"""What has been under way for longer than this may have been lost."""


@dataclass(frozen=True, slots=True)
class _Sending:
    stream: str
    order: int
    at_s: float


class Flight:
    """The messages of one connection, by their positions in the outbox.

    Attributes:
        room: how many may be under way that are not sent for the first time.
    """

    def __init__(self, *, resend_after_s: float) -> None:
        """Begin a connection.

        Args:
            resend_after_s: after which a message without acknowledgement is overdue.
        """
        self.room = _FIRST_ROOM
        self._resend_after_s = resend_after_s
        self._under_way: dict[int, _Sending] = {}
        self._known: int | None = None
        """The newest position that does not go out for the first time."""
        self._sendings = 0
        self._probes = 0
        self._heard_s = float("-inf")

    def due(self, waiting: Mapping[int, str], now_s: float) -> list[int]:
        """Return which messages to publish now, in order.

        Args:
            waiting: all that is not acknowledged and may be under way: the streams by position,
                ascending.
            now_s: by a monotonic clock.
        """
        if self._known is None:
            self._known = max(waiting, default=0)
        self._take_acknowledged(waiting, now_s)
        self._give_up_overdue(now_s)
        again = [at for at in waiting if at <= self._known and at not in self._under_way]
        new = [at for at in waiting if at > self._known and at not in self._under_way]
        room = self.room - sum(at <= self._known for at in self._under_way)
        chosen = again[: max(0, room)]
        others = again[1:]
        if self.room == 1 and chosen and others:
            self._probes += 1
            chosen.append(others[(self._probes - 1) % len(others)])
        return chosen + new

    def published(self, position: int, stream: str, now_s: float) -> None:
        """Note that a message was handed to the connection."""
        self._sendings += 1
        self._under_way[position] = _Sending(stream, self._sendings, now_s)

    def heard(self, now_s: float) -> None:
        """Note that the server spoke, and acknowledged nothing by that."""
        self._heard_s = now_s
        if self._lose(lambda sending: now_s - sending.at_s >= _ANSWER_S):
            self.room = 1

    def overdue_in_s(self, now_s: float) -> float:
        """Return after how many seconds the next message is overdue."""
        oldest = min((each.at_s for each in self._under_way.values()), default=now_s)
        return max(0.0, oldest + self._resend_after_s - now_s)

    def _take_acknowledged(self, waiting: Mapping[int, str], now_s: float) -> None:
        gone = [self._under_way.pop(at) for at in [*self._under_way] if at not in waiting]
        if not gone:
            return
        self._heard_s = now_s
        self.room = min(MOST, 2 * self.room)
        last = {sending.stream: sending.order for sending in sorted(gone, key=_by_order)}
        self._lose(lambda sending: sending.order < last.get(sending.stream, 0))

    def _give_up_overdue(self, now_s: float) -> None:
        oldest_s = min((each.at_s for each in self._under_way.values()), default=now_s)
        if self._lose(lambda sending: now_s - sending.at_s >= self._resend_after_s):
            self.room = max(1, self.room // 2) if self._heard_s > oldest_s else 1

    def _lose(self, is_lost: Callable[[_Sending], bool]) -> list[int]:
        lost = [at for at, sending in self._under_way.items() if is_lost(sending)]
        for at in lost:
            del self._under_way[at]
        if lost:
            self._known = max(self._known or 0, *lost)
        return lost


def _by_order(sending: _Sending) -> int:
    return sending.order

"""What answers take until gRPC has passed them on: as much as their callers let wait.

gRPC keeps an answer until its caller makes room for it, says nothing of those who never do, and
offers no way to end their calls: what waits is bounded here instead. A caller who reads nothing
keeps others from large answers over gRPC then, but neither from small ones nor from HTTP's.
"""

from edge_agent.inference.errors import RefusedError
from edge_agent.inference.request_memory import RequestMemory

SMALL_BYTES = 64 * 1024
"""Answers up to this size, which is what a transport of HTTP lets wait too, are not counted."""

_RETRY_S = 1.0


class AnswerMemory:
    """The account of all answers, part of that of the requests. Belongs to the event loop."""

    def __init__(self, memory: RequestMemory) -> None:
        """Nothing waits.

        Args:
            memory: from which answers are taken; half of it at most, or one that is larger.
        """
        self._memory = memory
        self._most = memory.most_bytes // 2
        self._waiting = 0

    def hold(self, size_bytes: int) -> None:
        """Set memory aside for an answer.

        Raises:
            RefusedError: there is not that much left; nothing was taken.
        """
        if self._waiting and self._waiting + size_bytes > self._most:
            raise RefusedError(
                f"the answers over gRPC that were not read yet take {self._waiting} bytes, with "
                f"{size_bytes} for this one it would be more than {self._most} (half of the "
                "setting runtime.request_memory_bytes); send this one again later",
                retry_after_s=_RETRY_S,
            )
        self._memory.reserve(size_bytes)
        self._waiting += size_bytes

    def let_go(self, size_bytes: int) -> None:
        """Give back what an answer took."""
        self._waiting -= size_bytes
        self._memory.give_back(size_bytes)


class StreamAnswers:
    """The answers of one stream, of which the first `SMALL_BYTES` are not counted."""

    def __init__(self, memory: AnswerMemory) -> None:
        """Nothing waits.

        Args:
            memory: from which they are taken.
        """
        self._memory = memory
        self._waiting = self._held = 0
        self._over = False

    def add(self, size_bytes: int) -> None:
        """Count an answer.

        Raises:
            RefusedError: there is no memory for it; nothing was counted.
        """
        beyond = self._waiting + size_bytes - SMALL_BYTES - self._held
        if beyond > 0 and not self._over:
            self._memory.hold(beyond)
            self._held += beyond
        self._waiting += size_bytes

    def add_failure(self, size_bytes: int) -> None:
        """Count an answer that says what went wrong, for which there always is memory."""
        self._waiting += size_bytes

    def written(self, size_bytes: int) -> None:
        """Take note that gRPC has passed an answer on."""
        self._waiting -= size_bytes
        self._hold_no_more_than(max(0, self._waiting - SMALL_BYTES))

    def end(self) -> None:
        """Give everything back, and hold no more: nobody is going to read what is left."""
        self._over = True
        self._hold_no_more_than(0)

    def _hold_no_more_than(self, size_bytes: int) -> None:
        if self._held > size_bytes:
            self._memory.let_go(self._held - size_bytes)
            self._held = size_bytes

"""How large a model's calls are: after an unusually large one its library holds on to the memory.

One call with a thousand items would otherwise take that memory for good, past the budget that the
model was admitted by.
"""

from collections.abc import Sequence

from edge_agent.inference.tensors import Tensor

_FALL = 8
"""Calls this many times smaller than one before them do not need its memory."""


class Extent:
    """The bytes of the largest call that memory is laid out for, and how many have needed less.

    Threads that run one model at once may miss each other's call; the next one makes up for it.
    """

    __slots__ = ("_calls", "_largest", "_latest", "_small")

    def __init__(self, *, calls: int = 1) -> None:
        """No call yet.

        Args:
            calls: so many small ones in a row say that the large ones are over; more than one
                where it costs time to lay memory out anew.
        """
        self._calls = calls
        self._latest = 0
        self._largest = 0
        self._small = 0

    def ran(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Take note of a call."""
        size = 0
        for tensor in inputs:
            size += len(tensor.data)
        for tensor in outputs:
            size += len(tensor.data)
        self._latest = size
        self._largest = max(self._largest, size)
        self._small = self._small + 1 if size * _FALL < self._largest else 0

    def has_fallen(self) -> bool:
        """Say, once, whether the latest calls were all far below the largest."""
        if self._small < self._calls:
            return False
        self._small = 0
        self._largest = self._latest
        return True

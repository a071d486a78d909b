"""How large a model's calls are: after an unusually large one its library holds on to the memory.

One call with a thousand items would otherwise take that memory for good, past the budget that the
model was admitted by.
"""

from collections.abc import Sequence

from edge_agent.inference.tensors import Tensor

_FALL = 8
"""Calls this many times smaller than one before them do not need its memory."""


class Extent:
    """The bytes of the latest call, and of the largest one that memory is still laid out for.

    Threads that run one model at once may miss each other's call; the next one makes up for it.
    """

    __slots__ = ("_largest", "_latest")

    def __init__(self) -> None:
        """No call yet."""
        self._latest = 0
        self._largest = 0

    def ran(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Take note of a call."""
        size = 0
        for tensor in inputs:
            size += len(tensor.data)
        for tensor in outputs:
            size += len(tensor.data)
        self._latest = size
        self._largest = max(self._largest, size)

    def has_fallen(self) -> bool:
        """Say, once, whether the latest call was far below the largest."""
        if self._latest * _FALL >= self._largest:
            return False
        self._largest = self._latest
        return True

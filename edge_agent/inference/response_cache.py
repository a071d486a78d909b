"""Answers that were given before, by the exact bytes of the inputs; bounded in memory.

A key holds the inputs themselves, so no two inputs are ever taken for each other. Large inputs are
not looked up: hashing and comparing them on the event loop would keep everybody else waiting.
"""

from collections import OrderedDict

from edge_agent.inference.tensors import Tensor

MAX_INPUT_BYTES = 64 * 1024
"""Looking up so many takes some 50 µs."""

_OVERHEAD_BYTES = 600
"""What an entry takes beside its bytes."""

Key = tuple[object, ...]


class ResponseCache:
    """The answers of all releases, least recently used first.

    An entry belongs to one loaded release (not to its name), so no answer outlives a swap.
    """

    def __init__(self, budget_bytes: int) -> None:
        """Hold nothing.

        Args:
            budget_bytes: for keys and answers together.
        """
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[Key, tuple[list[Tensor], int]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, serial: int, feed: list[Tensor]) -> Key | None:
        """Return the key of a call, None for one that is too large to be looked up.

        Args:
            serial: of the loaded release; never used again for another one.
            feed: the inputs in the order of the release.
        """
        total = sum(len(tensor.data) for tensor in feed)
        if total > MAX_INPUT_BYTES:
            return None
        parts: list[object] = [serial]
        for tensor in feed:
            parts.append(tuple(tensor.shape))
            parts.append(bytes(tensor.data))
        return tuple(parts)

    def get(self, key: Key) -> list[Tensor] | None:
        """Return the answer of an earlier call."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, outputs: list[Tensor]) -> None:
        """Keep an answer; those that were not asked for longest make room."""
        size = _OVERHEAD_BYTES + sum(len(part) for part in key if isinstance(part, bytes))
        size += sum(len(tensor.data) for tensor in outputs)
        if key in self._entries or size > self._budget_bytes:
            return
        while self.size_bytes + size > self._budget_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.size_bytes -= freed
        # Copied, so that a part of a batch does not keep the whole of it.
        copies = [
            Tensor(
                name=tensor.name,
                datatype=tensor.datatype,
                shape=list(tensor.shape),
                data=bytes(tensor.data),
            )
            for tensor in outputs
        ]
        self._entries[key] = (copies, size)
        self.size_bytes += size

    def forget(self, serial: int) -> None:
        """Drop the answers of a release that leaves memory."""
        for key in [key for key in self._entries if key[0] == serial]:
            _, size = self._entries.pop(key)
            self.size_bytes -= size

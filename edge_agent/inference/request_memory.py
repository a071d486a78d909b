"""How much memory requests take together, from their first byte to their answer.

Each alone is bounded, but so many callers as may connect could send one each, and never finish, or
send few bytes that stand for many: the kernel would end the process, and nobody would be served.
"""

from edge_agent.inference.errors import RefusedError

_RETRY_S = 1.0
"""When a caller who was refused for want of room may come again."""


class RequestMemory:
    """The account of all requests, whatever carries them. Belongs to the event loop."""

    __slots__ = ("_free", "_lacked", "_most")

    def __init__(self, most_bytes: int = 1 << 62) -> None:
        """Nothing is taken.

        Args:
            most_bytes: of all requests together.
        """
        self._most = self._free = most_bytes
        self._lacked = 0

    @property
    def most_bytes(self) -> int:
        """How much all requests together may take."""
        return self._most

    def reserve(self, size_bytes: int) -> None:
        """Set memory aside for what a request takes beside its body, or for a whole message.

        Raises:
            RefusedError: there is not that much left; nothing was taken.
        """
        if size_bytes > self._free:
            raise RefusedError(self._shortage(size_bytes), retry_after_s=_RETRY_S)
        self._free -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Let others have what was taken."""
        self._free += size_bytes

    def lacked_bytes(self) -> int:
        """Return what the largest request lacked that was refused since this was last asked."""
        lacked, self._lacked = self._lacked, 0
        return lacked

    def _shortage(self, size_bytes: int) -> str:
        """Take note of a request for which there is no room, and say so."""
        self._lacked = max(self._lacked, size_bytes - self._free)
        return (
            f"the requests under way and the answers that were not read yet take "
            f"{self._most - self._free} bytes, with {size_bytes} for this one it would be more "
            f"than {self._most} (setting runtime.request_memory_bytes); send this one again later"
        )

"""How much memory the bodies of requests take together, from their first byte to their answer.

Each body alone is bounded, but so many callers as may connect could send one each and never finish:
the kernel would end the process, and nobody would be served.
"""

from edge_agent.inference.http_messages import HttpError


class BodyMemory:
    """Shared by the connections of a server. Belongs to the event loop."""

    __slots__ = ("_free", "_most")

    def __init__(self, most_bytes: int) -> None:
        """Nothing is taken.

        Args:
            most_bytes: of all bodies together.
        """
        self._most = self._free = most_bytes

    def take(self, size_bytes: int) -> None:
        """Set memory aside for a body, or for more of it.

        Raises:
            HttpError: there is not that much left; nothing was taken.
        """
        if size_bytes > self._free:
            raise HttpError(
                503,
                f"the requests under way take {self._most - self._free} bytes, with this one it "
                f"would be more than {self._most} (setting runtime.request_memory_bytes); this "
                "one was not run, send it again later",
            )
        self._free -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Let others have what was taken."""
        self._free += size_bytes

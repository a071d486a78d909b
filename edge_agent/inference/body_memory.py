"""The account of requests as HTTP's connections use it: they take for a body while it comes."""

from edge_agent.inference.http_messages import HttpError
from edge_agent.inference.request_memory import RequestMemory


class BodyMemory(RequestMemory):
    """Shared by the connections of a server, and with what is made of their bodies."""

    __slots__ = ()

    def take(self, size_bytes: int) -> None:
        """Set memory aside for a body, or for more of it.

        Raises:
            HttpError: there is not that much left; nothing was taken.
        """
        if size_bytes > self._free:
            raise HttpError(503, self._shortage(size_bytes))
        self._free -= size_bytes

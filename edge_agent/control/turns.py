"""One at a time for each name: two downloads of the same file would write into one ``.part``."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_agent.control.partial_file import check_cancelled

_LOOK_EVERY_S = 0.25


class Turns:
    """Who is at work on which name; waiters are threads."""

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    def taken(self, name: str) -> bool:
        """Say whether somebody is at work on a name."""
        with self._changed:
            return name in self._busy

    @contextmanager
    def alone(self, name: str, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Run the block when nobody else is at work on the name.

        Raises:
            CancelledDownloadError: the caller no longer wants to.
        """
        with self._changed:
            while name in self._busy:
                check_cancelled(cancelled)
                self._changed.wait(_LOOK_EVERY_S)
            self._busy.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(name)
                self._changed.notify_all()

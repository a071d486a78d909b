"""Finds out that the runtime hangs, by asking it now and then whether it lives.

It holds for a runtime with no candidate at stake and for a device whose control is dead; a
candidate that hangs is control's matter and noticed sooner. Nothing here waits: the supervisor
polls the socket of the question with all else. What follows from a hang is its decision too.
"""

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

HANG_S = 60.0
"""For so long a runtime may be silent unless the settings say otherwise."""

QUESTIONS = 6
"""That many have to stay without an answer, so that one pause of the whole machine is no hang."""

_QUESTION = b"GET /v2/health/live HTTP/1.1\r\nHost: runtime\r\nConnection: close\r\n\r\n"
_ANSWER = b"HTTP/1.1 "


@dataclass
class Silence:
    """What the questions of one life of the runtime have come to.

    Attributes:
        has_answered: before that it boots, which may take as long as its models are large.
        unanswered: questions in a row.
    """

    has_answered: bool = False
    unanswered: int = 0

    def after(self, *, answered: bool) -> bool:
        """Take the end of a question; return whether the runtime hangs."""
        if answered:
            self.has_answered = True
            self.unanswered = 0
        elif self.has_answered:
            self.unanswered += 1
        return self.unanswered >= QUESTIONS


class HangWatch:
    """Asks one question at a time on the admin socket."""

    def __init__(self, path: Path, *, hang_s: float) -> None:
        """Take the admin socket and how long silence may last, in seconds."""
        self._path = path
        self._every_s = hang_s / QUESTIONS
        self._silence = Silence()
        self._asked = False
        self._answered = False
        self._socket: socket.socket | None = None
        self.due_s = 0.0
        """When `tick` shall be called."""

    @property
    def descriptor(self) -> int:
        """What becomes readable with an answer; -1 if none is waited for."""
        return -1 if self._socket is None else self._socket.fileno()

    def begin(self, now_s: float) -> None:
        """Forget the life before: another process is there."""
        self._close()
        self._silence = Silence()
        self._asked = False
        self.due_s = now_s + self._every_s

    def tick(self, now_s: float) -> bool:
        """End the question before, ask the next one; return whether the runtime hangs."""
        hangs = self._asked and self._silence.after(answered=self._answered)
        self._ask()
        self.due_s = now_s + self._every_s
        return hangs

    def read(self) -> None:
        """Read what has come."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._answered = self._socket.recv(len(_ANSWER)) == _ANSWER
        self._close()

    def _ask(self) -> None:
        self._close()
        self._asked, self._answered = True, False
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        asking.setblocking(False)  # noqa: FBT003 (its only argument)
        try:
            asking.connect(str(self._path))
            asking.sendall(_QUESTION)
        except OSError:  # nobody listens, or too many wait: a question without an answer
            asking.close()
        else:
            self._socket = asking

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

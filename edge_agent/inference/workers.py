"""The threads in which models run, and which release's turn it is when one gets free."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

Job = Callable[[], None]
"""Runs in a thread; raises nothing."""


class Contender(Protocol):
    """The scheduler of a release, as the threads see it."""

    def urgency(self) -> tuple[int, float, int] | None:
        """Return the rank of its first waiting call (smaller is first), None if it needs no one."""
        ...

    def advance(self) -> None:
        """Begin what may begin now."""
        ...

    def recall(self) -> None:
        """Begin nothing more without being asked: others wait for a thread, too."""
        ...


class Workers:
    """A fixed number of threads, shared by all releases.

    Belongs to the event loop except for the threads themselves. A thread is handed a job directly
    and reports through the loop, which costs half of what an executor with its futures costs.
    """

    def __init__(self, count: int) -> None:
        """Start no thread before it is needed.

        Args:
            count: jobs at the same time.
        """
        self._count = count
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._contenders: dict[Contender, None] = {}
        self._ahead: set[Contender] = set()

    @property
    def free(self) -> bool:
        """True while a job would begin at once."""
        return self._busy < self._count

    def start(self, job: Job) -> None:
        """Run a job in a thread; only while `free`, and each is followed by one `finished`."""
        self._busy += 1
        if len(self._threads) < self._busy:
            thread = threading.Thread(
                target=self._work, name=f"infer_{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def finished(self) -> None:
        """Take note that a job has ended, and let the most urgent waiting calls begin."""
        self._busy -= 1
        while self.free and self._contenders:
            ranked = [
                (rank, contender)
                for contender in self._contenders
                if (rank := contender.urgency()) is not None
            ]
            self._contenders = {contender: None for _, contender in ranked}
            if not ranked:
                return
            _, first = min(ranked, key=lambda entry: entry[0])
            del self._contenders[first]
            first.advance()

    def contend(self, contender: Contender) -> None:
        """Let a scheduler know when a thread is free for its waiting calls."""
        self._contenders[contender] = None
        for other in list(self._ahead):
            if other is not contender:
                self._ahead.discard(other)
                other.recall()

    def contested(self, contender: Contender) -> bool:
        """Say whether anyone else waits for a thread; else the one who asks may go ahead.

        Who goes ahead, lets its threads go from run to run until it is asked to recall that.
        """
        if any(other is not contender for other in self._contenders):
            return True
        self._ahead.add(contender)
        return False

    def forget(self, contender: Contender) -> None:
        """Let go of a scheduler that needs no thread any more."""
        self._contenders.pop(contender, None)
        self._ahead.discard(contender)

    def close(self) -> None:
        """End the threads; no job may be under way."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

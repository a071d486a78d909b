"""Tells the story of the demo on standard error: stages, facts, and what is being waited for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console

from skerry.demo.errors import DemoError

_POLL_S = 0.1
Result = TypeVar("Result")


class Narrator:
    """Prints as the story goes; on a terminal with colour and a live line, elsewhere plainly."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, key: str, title: str) -> Iterator[None]:
        """Announce a stage and time it."""
        self._console.print(f"\n[bold cyan]{len(self.seconds) + 1}. {title}[/]")
        started = time.monotonic()
        yield
        self.seconds[key] = round(time.monotonic() - started, 2)

    def fact(self, text: str) -> None:
        """State something that was just seen to be so."""
        self._console.print(f"   [green]✓[/] {text}", highlight=False)

    def say(self, text: str) -> None:
        """Explain."""
        self._console.print(f"   [dim]{text}[/]", highlight=False)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show that something takes a moment."""
        if self._console.is_terminal:
            with self._console.status(f"{text} …"):
                yield
        else:
            yield

    def wait(
        self, text: str, look: Callable[[], Result | None], *, timeout_s: float, logs: str
    ) -> Result:
        """Look again and again until there is a result.

        Raises:
            DemoError: there was none in time.
        """
        deadline = time.monotonic() + timeout_s
        with self.working(f"waiting: {text}"):
            while True:
                result = look()
                if result is not None and result is not False:
                    return result
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"waited {timeout_s:.0f} s in vain: {text}. The logs are in {logs}"
                    )
                time.sleep(_POLL_S)

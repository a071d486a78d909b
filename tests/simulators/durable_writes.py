"""Every durable write of this process, wherever in the agent's code it is made.

The seam lies below the agent: the calls of `os` that make bytes or names durable, and the commits
of SQLite. So nobody keeps a list of the places that write; one that is added is found.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from edge_agent import store

_CALLS = ("fsync", "replace", "rename", "unlink", "remove")

Before = Callable[[str], int]
"""Is told what a write is, gives it a number."""

After = Callable[[int], None]
"""Is told the number; writes of several threads may overlap."""


@contextmanager
def watched(*, before: Before, after: After) -> Iterator[None]:
    """Call a hook before and after each durable write, with what it is."""

    def around(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            what = f"{name} {_what(arguments)}"
            number = before(what)
            result = real(*arguments, **options)
            after(number)
            return result

        return call

    real_transaction = store.transaction

    @contextmanager
    def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        changes, number = connection.total_changes, 0
        with real_transaction(connection) as inside:
            yield inside
            wrote = connection.total_changes != changes
            if wrote:
                number = before("commit state.db")
        if wrote:
            after(number)

    with ExitStack() as patches:
        for name in _CALLS:
            patches.enter_context(mock.patch.object(os, name, around(name)))
        patches.enter_context(mock.patch.object(store, "transaction", transaction))
        yield


def _what(arguments: tuple[object, ...]) -> str:
    return " ".join(
        Path(argument).name if isinstance(argument, str | os.PathLike) else "file"
        for argument in arguments
    )

"""``state.db`` for the event loop: transactions run on one thread of their own.

A commit waits for the disk, so none runs on the loop; one thread means that transactions never
wait for each other's locks and that the connection is never shared.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from edge_agent import store
from edge_agent.control.pulse import Pulse

Result = TypeVar("Result")


class Database:
    """The control process's one connection to ``state.db``.

    Attributes:
        changed: bumped after each transaction that wrote something.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, made if there is none.

        Raises:
            StoreError: it cannot be used.
        """
        self._connection = store.open_database(path)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state-db")
        self.changed = Pulse()

    async def transact(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work`` as one transaction and return what it returns.

        A caller that is cancelled while it waits does not stop the transaction.

        Raises:
            StoreError: the database refused; nothing was changed.
        """
        loop = asyncio.get_running_loop()
        result, wrote = await loop.run_in_executor(self._executor, self._transact, work)
        if wrote:
            self.changed.bump()
        return result

    def _transact(self, work: Callable[[sqlite3.Connection], Result]) -> tuple[Result, bool]:
        before = self._connection.total_changes
        with store.transaction(self._connection) as connection:
            result = work(connection)
        return result, self._connection.total_changes != before

    def close(self) -> None:
        """Finish the transaction under way and close."""
        self._executor.shutdown(wait=True)
        self._connection.close()

"""The real server, which dies at its first durable write to the rollouts, as if by SIGKILL.

The seam lies below the server: the statements that reach the database, and its commits. So nobody
keeps a list of the places that write; one that is added is found. ``before`` dies with the
transaction open, so that nothing of it happened; ``after`` dies when the database has confirmed it
and nobody in the process knows.
"""

import os
import re
import signal
import sys

from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.engine.default import DefaultDialect

from fleet_server import process

MODULE = "tests.simulators.mortal_server"
_WRITES = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM) rollout", re.IGNORECASE)
_MARK = "wrote_rollouts"


def main(moment: str, *arguments: str) -> None:
    """Run the server until it dies ``before`` or ``after`` such a commit."""

    @event.listens_for(Engine, "before_cursor_execute")
    def mark(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if _WRITES.match(statement):
            connection.connection.info[_MARK] = True

    commit = DefaultDialect.do_commit

    def do_commit(dialect: DefaultDialect, connection: PoolProxiedConnection) -> None:
        counts = connection.info.pop(_MARK, False)
        if counts and moment == "before":
            _die()
        commit(dialect, connection)  # type: ignore[no-untyped-call]
        if counts:
            _die()

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
    sys.exit(process.main(arguments))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

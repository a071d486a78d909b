"""Keeps commands away from an update that is being judged."""

from edge_agent.control.commands.runner import CommandRefusedError
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal
from fleet_protocol.update_states import UpdateState

_JUDGED = frozenset({UpdateState.TRIAL, UpdateState.PROBATION})


async def check_none(database: Database, journal: Journal, what: str) -> None:
    """Return if no update is on trial or probation.

    Args:
        database: holds the journal.
        journal: of updates.
        what: would be done, for the message.

    Raises:
        CommandRefusedError: one is; what would be done would spoil its judgement, or end it.
        StoreError: the database refused.
    """
    for record in (await database.transact(journal.records)).values():
        if record.state in _JUDGED:
            raise CommandRefusedError(
                f"{record.family} {record.version} is on {record.state.value}: {what} would "
                "spoil its judgement; ask again when it is over"
            )

"""What is done about commands at intervals: close what expired, publish what is open again."""

import asyncio
import logging

from fleet_protocol.errors import SkerryError
from fleet_server.commands.archive import Archive
from fleet_server.commands.mailboxes import Mailboxes

logger = logging.getLogger(__name__)

_INTERVAL_S = 15.0
_PUBLISH_EVERY = 4
"""Rounds between publications of every open command, for what a dying server did not publish."""


class CommandLoop:
    """The task; several servers may run it at once."""

    def __init__(
        self, *, archive: Archive, mailboxes: Mailboxes, interval_s: float = _INTERVAL_S
    ) -> None:
        self._archive = archive
        self._mailboxes = mailboxes
        self._interval_s = interval_s

    async def run(self) -> None:
        """Work until cancelled."""
        number = 0
        while True:
            number += 1
            try:
                await self.round(publish=number % _PUBLISH_EVERY == 0)
            except (SkerryError, OSError) as error:
                logger.error("command_round_failed", extra={"reason": str(error)})  # noqa: TRY400 (said in one sentence)
            await asyncio.sleep(self._interval_s)

    async def round(self, *, publish: bool) -> None:
        """Do it once.

        Raises:
            UnavailableError: the database failed.
        """
        await self._archive.tidy()
        if publish:
            await self._mailboxes.publish_filled()

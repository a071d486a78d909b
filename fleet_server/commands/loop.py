"""What is done about commands at intervals.

What expired is closed, what is open is published again, and devices that work with other settings
than desired are commanded to change them.
"""

import asyncio
import contextlib
import logging

from fleet_protocol.errors import SkerryError
from fleet_server.audit import trail
from fleet_server.commands.archive import Archive
from fleet_server.commands.configurations import Configurations
from fleet_server.commands.issuing import Issuing
from fleet_server.commands.mailboxes import Mailboxes

logger = logging.getLogger(__name__)

_INTERVAL_S = 15.0
_AT_ONCE = 200
_LIFETIME_S = 3600
_PUBLISH_EVERY = 4
"""Rounds between publications of every open command, for what a dying server did not publish."""


class CommandLoop:
    """The task; several servers may run it at once."""

    def __init__(
        self,
        *,
        archive: Archive,
        mailboxes: Mailboxes,
        configurations: Configurations,
        issuing: Issuing,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._archive = archive
        self._configurations = configurations
        self._issuing = issuing
        self._mailboxes = mailboxes
        self._interval_s = interval_s

    async def run(self) -> None:
        """Work until cancelled."""
        number = 0
        while True:
            number += 1
            self._configurations.changed.clear()
            try:
                await self.round(publish=number % _PUBLISH_EVERY == 0)
            except (SkerryError, OSError) as error:
                logger.error("command_round_failed", extra={"reason": str(error)})  # noqa: TRY400 (said in one sentence)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._configurations.changed.wait()

    async def round(self, *, publish: bool) -> None:
        """Do it once.

        Raises:
            RefusedError: the signer refuses.
            UnavailableError: signer or database do not answer.
        """
        await self._archive.tidy()
        pending = await self._configurations.pending(limit=_AT_ONCE)
        if pending:
            await self._issuing.issue_each(pending, lifetime_s=_LIFETIME_S, who=trail.SERVER)
        if publish:
            await self._mailboxes.publish_filled()

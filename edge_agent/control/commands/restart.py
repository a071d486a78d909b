"""The command `restart_runtime`, and restarts that other commands need."""

import asyncio
import time
from collections.abc import Callable

from edge_agent.control.commands import at_risk
from edge_agent.control.commands.patience import Patience
from edge_agent.control.commands.runner import Done
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal
from edge_agent.control.runtime_client import (
    Runtime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.errors import AgentError
from edge_agent.runtime_api import RuntimeStatus
from fleet_protocol.command_answers import RestartResult
from fleet_protocol.commands import Action, Command


class RuntimeNotBackError(AgentError):
    """The runtime was ended and does not serve what it served before."""


class RuntimeRestart:
    """Ends the runtime process and waits until its successor serves the same."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        stop_runtime: Callable[[], None],
        patience: Patience,
    ) -> None:
        """Take the runtime, and what lets its process end after the calls in flight."""
        self._runtime = runtime
        self._stop_runtime = stop_runtime
        self._back_within_s = patience.back_within_s
        self._look_every_s = patience.restart_look_s

    async def restart(self) -> float:
        """Restart the runtime; return for how many seconds it did not answer.

        Raises:
            RuntimeNotBackError: it is not back in time.
        """
        before = await asyncio.to_thread(self._status)
        epoch = "" if before is None else before.epoch
        served = _served(before)
        began_s = time.monotonic()
        await asyncio.to_thread(self._stop_runtime)
        missing = set(served)
        while time.monotonic() - began_s < self._back_within_s:
            status = await asyncio.to_thread(self._status)
            if status is not None and status.epoch != epoch:
                missing = served - _served(status)
                if not missing:
                    return round(time.monotonic() - began_s, 3)
            await asyncio.sleep(self._look_every_s)
        if missing:
            raise RuntimeNotBackError(
                f"{self._back_within_s:.0f} s after its restart the runtime does not serve "
                f"{', '.join(sorted(missing))}"
            )
        raise RuntimeNotBackError(
            f"the runtime was not restarted within {self._back_within_s:.0f} s"
        )

    def serving(self) -> set[str]:
        """Return family and version of what the runtime serves, nothing if it does not answer."""
        return _served(self._status())

    def _status(self) -> RuntimeStatus | None:
        try:
            return self._runtime.status()
        except (RuntimeUnavailableError, RuntimeRefusedError):
            return None


class RestartAction:
    """Carries the command out."""

    def __init__(self, *, restart: RuntimeRestart, database: Database, journal: Journal) -> None:
        self._restart = restart
        self._database = database
        self._journal = journal

    async def __call__(self, _action: Action, _command: Command) -> Done:
        """Restart the runtime.

        Raises:
            CommandRefusedError: an update is being judged.
            RuntimeNotBackError: it is not back in time.
        """
        await at_risk.check_none(self._database, self._journal, "a restart of the runtime")
        away_s = await self._restart.restart()
        return Done(
            f"the runtime was restarted and serves again after {away_s:.1f} s",
            RestartResult(away_s=away_s),
        )


def _served(status: RuntimeStatus | None) -> set[str]:
    releases = [] if status is None else status.releases
    return {f"{release.family} {release.version}" for release in releases if release.active}

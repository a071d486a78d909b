"""The command `configure`: settings of the fleet, tried before they are kept.

The settings of a process do not change while it lives. So control writes what is wanted beside what
works (`edge_agent.remote_settings`) and ends; the supervisor starts it again, and the new process
judges itself before it runs another command: it lives for a while, and the runtime serves what it
served before. Otherwise the former settings are back, and the process ends once more to take them
up.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent import remote_settings, settings
from edge_agent.control.commands import at_risk
from edge_agent.control.commands.patience import Patience
from edge_agent.control.commands.restart import RuntimeNotBackError, RuntimeRestart
from edge_agent.control.commands.runner import LATER, Done, Later
from edge_agent.control.database import Database
from edge_agent.control.journal import Journal
from edge_agent.control.pulse import Pulse
from edge_agent.errors import AgentError
from edge_agent.remote_settings import Configuration, Remote, Trial
from fleet_protocol.command_answers import Outcome
from fleet_protocol.commands import Action, Command, Configure
from fleet_protocol.remote_settings import ConfigurationStatus

logger = logging.getLogger(__name__)


class ConfigureAction:
    """Carries the command out, over the end of the process.

    Attributes:
        changed: bumped when what is in effect, or why something is not, has changed.
    """

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        state_root: Path,
        database: Database,
        journal: Journal,
        runtime: RuntimeRestart,
        end_process: Callable[[], None],
        patience: Patience,
    ) -> None:
        """Take the parts.

        Args:
            state_root: where the settings are.
            database: holds the journal.
            journal: of updates, which settings leave alone.
            runtime: restarts it, and knows what it serves.
            end_process: ends this process, to be started again.
            patience: with a process under settings on trial, and with its runtime.
        """
        self.changed = Pulse()
        self._state_root = state_root
        self._database = database
        self._journal = journal
        self._runtime = runtime
        self._end_process = end_process
        self._patience = patience
        self._remote = remote_settings.read(state_root)
        self._began_on_trial = self._remote.trial is not None
        self._verdict: str | None = None
        self._runtime_has_former = False

    @property
    def status(self) -> ConfigurationStatus:
        """Which configuration is in effect."""
        return self._remote.status

    async def __call__(self, action: Action, command: Command) -> Done | Later:
        """Put settings on trial.

        Raises:
            CommandRefusedError: an update is being judged.
            SettingsError: with the device's own settings they make no sense.
            StoreError: the disk refused.
        """
        if not isinstance(action, Configure):
            raise TypeError(f"{action} configures nothing")
        wanted = Configuration(
            name=action.name,
            version=action.version,
            settings=action.settings,
            command_id=command.id,
            issued_ms=command.issued_ms,
        )
        await at_risk.check_none(self._database, self._journal, "new settings")
        if wanted.settings == self._remote.working.settings:
            await self._settle(Remote(working=wanted))
            return Done(f"{_named(wanted)} is in effect; its settings were so already")
        settings.check_remote(self._state_root, os.environ, wanted.settings)
        serving = sorted(await asyncio.to_thread(self._runtime.serving))
        trial = Trial(wanted=wanted, serving=serving)
        await asyncio.to_thread(remote_settings.put_on_trial, self._state_root, trial)
        self._is(Remote(working=self._remote.working, trial=trial))
        self._end_process()
        return LATER

    def fate(self, command: Command) -> tuple[Outcome, str] | None:
        """Say what became of a command that an earlier life of this process began, if known.

        Nothing is known of one whose settings are on trial: `judge` comes first.
        """
        remote = self._remote
        if remote.refused is not None and remote.refused.command_id == command.id:
            return Outcome.FAILED, f"the former settings are back: {remote.refused.problem}"
        if remote.working.command_id == command.id:
            return Outcome.DONE, f"{_named(remote.working)} is in effect"
        return None

    async def judge(self) -> bool:
        """Keep or give up what is on trial, if anything is; say whether this process goes on.

        Called again after an error, it goes on where it was: it restarts the runtime no second
        time.

        Raises:
            StoreError: the disk refused; nothing is settled before this has been called again.
        """
        trial = self._remote.trial
        if trial is not None:
            if self._verdict is None:
                self._verdict = await self._problem(trial)
            if not self._verdict:
                await self._settle(self._remote.kept())
                self._began_on_trial = False  # so it goes on, also when asked again
                logger.info("settings_kept", extra={"version": trial.wanted.version})
                return True
            await asyncio.to_thread(remote_settings.end_trial, self._state_root)
            self._is(self._remote.given_up())
        if self._remote.ended is not None:
            await self._take_back(self._remote.ended)
        return not self._began_on_trial

    async def _take_back(self, ended: Trial) -> None:
        problem = self._verdict or ended.unsaid
        logger.error("settings_given_up", extra={"reason": problem})
        if self._for_runtime(ended) and not self._runtime_has_former:
            await self._back_to_former()
        self._runtime_has_former = True
        await self._settle(self._remote.noted(problem))
        if self._began_on_trial:
            self._end_process()

    def _for_runtime(self, trial: Trial) -> bool:
        return trial.wanted.settings.runtime != self._remote.working.settings.runtime

    async def _problem(self, trial: Trial) -> str:
        began_s = time.monotonic()
        try:
            if self._for_runtime(trial):
                await self._runtime.restart()
            missing = set(trial.serving)
            while missing and time.monotonic() - began_s < self._patience.serves_within_s:
                missing -= await asyncio.to_thread(self._runtime.serving)
                await asyncio.sleep(self._patience.trial_look_s if missing else 0)
        except RuntimeNotBackError as error:
            return str(error)
        if missing:
            return f"the runtime does not serve {', '.join(sorted(missing))}"
        await asyncio.sleep(max(0.0, self._patience.steady_s - (time.monotonic() - began_s)))
        return ""

    async def _back_to_former(self) -> None:
        try:
            await self._runtime.restart()
        except AgentError as error:
            logger.error("runtime_not_back", extra={"reason": str(error)})  # noqa: TRY400 (said)

    async def _settle(self, remote: Remote) -> None:
        await asyncio.to_thread(remote_settings.settle, self._state_root, remote)
        self._is(remote)

    def _is(self, remote: Remote) -> None:
        self._remote = remote
        self.changed.bump()


def _named(configuration: Configuration) -> str:
    if not configuration.name:
        return "the device's own configuration"
    return f"configuration {configuration.name} {configuration.version}"

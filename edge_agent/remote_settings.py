"""``remote-settings.json``: what the fleet has set, beside what works, until it has proven itself.

Control is the only writer. Both processes read it when they start: what is on trial counts until
control keeps it or takes it back. A start that finds settings on trial counts itself first, so
settings under which control does not live long enough to judge them are given up by the third
start.
"""

import logging
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent.errors import AgentError
from fleet_protocol.remote_settings import ConfigurationStatus, NameOrNone, RemoteSettings

logger = logging.getLogger(__name__)

FILE_NAME = "remote-settings.json"
MAX_STARTS = 2
"""Starts of the control process under settings on trial."""

_MAX_BYTES = 64 * 1024


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with where they are from.

    Attributes:
        command_id: of the command that brought them.
    """

    name: NameOrNone = ""
    version: int = 0
    settings: RemoteSettings = RemoteSettings()
    command_id: str = ""


NONE = Configuration()


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that are being tried.

    Attributes:
        starts: of the control process under them.
        serving: family and version of what the runtime served before, which it has to serve again.
    """

    wanted: Configuration
    starts: Annotated[int, msgspec.Meta(ge=0)] = 0
    serving: list[str] = []


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that were not kept, and why."""

    version: int
    command_id: str
    problem: str


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """The file.

    Attributes:
        working: what proved itself last.
        trial: what is tried in its place.
        refused: the newest that was not kept, unless something newer was.
    """

    schema: Literal[1] = 1
    working: Configuration = NONE
    trial: Trial | None = None
    refused: Refusal | None = None

    @property
    def effective(self) -> RemoteSettings:
        """What a process that starts now works with."""
        return (self.working if self.trial is None else self.trial.wanted).settings

    @property
    def status(self) -> ConfigurationStatus:
        """What the fleet is told."""
        refused = self.refused
        return ConfigurationStatus(
            name=self.working.name,
            version=self.working.version,
            trial_version=0 if self.trial is None else self.trial.wanted.version,
            refused_version=0 if refused is None else refused.version,
            problem="" if refused is None else refused.problem[:1000],
        )

    def kept(self) -> "Remote":
        """Return it with what was on trial as what works."""
        return self if self.trial is None else Remote(working=self.trial.wanted)

    def given_up(self, problem: str) -> "Remote":
        """Return it without what was on trial."""
        if self.trial is None:
            return self
        wanted = self.trial.wanted
        refusal = Refusal(version=wanted.version, command_id=wanted.command_id, problem=problem)
        return Remote(working=self.working, refused=refusal)


def read(state_root: Path) -> Remote:
    """Return what the file says; nothing if there is none or it is damaged."""
    try:
        with (state_root / FILE_NAME).open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=Remote)
    except FileNotFoundError:
        return Remote()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        logger.error("remote_settings_damaged", extra={"reason": str(error)})  # noqa: TRY400 (no defect of ours)
        return Remote()


def write(state_root: Path, remote: Remote) -> None:
    """Replace the file, durably.

    Raises:
        StoreError: the disk refused; the old file stands.
    """
    from edge_agent import store  # noqa: PLC0415 (with SQLite, which the runtime does without)

    store.write_file(state_root / FILE_NAME, msgspec.json.format(msgspec.json.encode(remote)))


def count_start(state_root: Path) -> None:
    """Count a start of control under settings on trial, or give these up after too many.

    A disk that refuses is no reason not to start: the settings then stay on trial.
    """
    remote = read(state_root)
    if remote.trial is None:
        return
    trial = msgspec.structs.replace(remote.trial, starts=remote.trial.starts + 1)
    counted = msgspec.structs.replace(remote, trial=trial)
    if trial.starts > MAX_STARTS:
        problem = f"the control process ended {MAX_STARTS} times while it tried them"
        counted = remote.given_up(problem)
    try:
        write(state_root, counted)
    except AgentError as error:
        logger.error("start_not_counted", extra={"reason": str(error)})  # noqa: TRY400 (a full disk)

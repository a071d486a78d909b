"""What the fleet has set: settings that work, and beside them those that have to prove themselves.

Control is the only writer. Both processes read the files when they start: what is on trial counts
until control keeps it or takes it back. A start that finds settings on trial counts itself first,
so settings under which control does not live long enough to judge them are given up by the third
start. They have a file of their own because to end a trial, by another name, takes no room: on a
full disk, where neither a start nor a verdict can be written, the former settings are back all the
same.
"""

import logging
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from edge_agent.errors import AgentError
from fleet_protocol.remote_settings import ConfigurationStatus, NameOrNone, RemoteSettings

logger = logging.getLogger(__name__)

File = TypeVar("File", bound=msgspec.Struct)

FILE_NAME = "remote-settings.json"
TRIAL_FILE_NAME = "remote-settings-trial.json"
ENDED_FILE_NAME = "remote-settings-ended.json"
MAX_STARTS = 2
"""Starts of the control process under settings on trial."""

_MAX_BYTES = 64 * 1024


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with where they are from.

    Attributes:
        command_id: of the command that brought them.
        issued_ms: when the fleet issued that, 0 without one.
    """

    name: NameOrNone = ""
    version: int = 0
    settings: RemoteSettings = RemoteSettings()
    command_id: str = ""
    issued_ms: int = 0


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

    @property
    def unsaid(self) -> str:
        """Why it ended, if whoever ended it did not come to write it."""
        if self.starts >= MAX_STARTS:
            return f"the control process ended {self.starts} times while it tried them"
        return "the control process ended while it tried them, before it could say why"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that were not kept, and why."""

    version: int
    command_id: str
    problem: str


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """All there is.

    Attributes:
        working: what proved itself last.
        refused: the newest that was not kept, unless something newer was.
        trial: what is tried in the place of what works; in a file of its own.
        ended: a trial that was given up, until that is noted as `refused`; likewise.
    """

    schema: Literal[1] = 1
    working: Configuration = NONE
    refused: Refusal | None = None
    trial: Trial | None = None
    ended: Trial | None = None

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

    def given_up(self) -> "Remote":
        """Return it with the trial ended."""
        return Remote(working=self.working, refused=self.refused, ended=self.trial)

    def noted(self, problem: str) -> "Remote":
        """Return it with a trial that has ended as refused."""
        if self.ended is None:
            return self
        wanted = self.ended.wanted
        refusal = Refusal(version=wanted.version, command_id=wanted.command_id, problem=problem)
        return Remote(working=self.working, refused=refusal)


def read(state_root: Path) -> Remote:
    """Return what the files say; nothing of one that is not there or damaged."""
    found = _read(state_root / FILE_NAME, Remote) or Remote()
    over = {found.working.command_id, "" if found.refused is None else found.refused.command_id}
    trial, ended = (
        None if trial is None or trial.wanted.command_id in over else trial
        for trial in (
            _read(state_root / TRIAL_FILE_NAME, Trial),
            _read(state_root / ENDED_FILE_NAME, Trial),
        )
    )
    return Remote(working=found.working, refused=found.refused, trial=trial, ended=ended)


def put_on_trial(state_root: Path, trial: Trial) -> None:
    """Write what is to be tried, durably.

    Raises:
        StoreError: the disk refused; nothing is on trial that was not before.
    """
    _write(state_root / TRIAL_FILE_NAME, trial)


def end_trial(state_root: Path) -> None:
    """Let the settings that worked before count again, which takes no room on the disk.

    Raises:
        StoreError: the disk refused.
    """
    from edge_agent import store  # noqa: PLC0415 (with SQLite, which the runtime does without)

    store.publish_file(state_root / TRIAL_FILE_NAME, state_root / ENDED_FILE_NAME)


def settle(state_root: Path, remote: Remote) -> None:
    """Write what works and what was refused, durably; with that no trial is open any more.

    Raises:
        StoreError: the disk refused; an open trial still is.
    """
    from edge_agent import store  # noqa: PLC0415 (with SQLite, which the runtime does without)

    _write(state_root / FILE_NAME, remote)
    for name in (TRIAL_FILE_NAME, ENDED_FILE_NAME):
        store.remove_file(state_root / name)


def count_start(state_root: Path) -> None:
    """Count a start of control under settings on trial, or end the trial after too many.

    A start that cannot be counted is made under the settings that worked before: it might be one of
    many.
    """
    trial = read(state_root).trial
    if trial is None:
        return
    try:
        if trial.starts < MAX_STARTS:
            counted = msgspec.structs.replace(trial, starts=trial.starts + 1)
            put_on_trial(state_root, counted)
            return
    except AgentError as error:
        logger.error("start_not_counted", extra={"reason": str(error)})  # noqa: TRY400 (a full disk)
    try:
        end_trial(state_root)
    except AgentError as error:  # a disk that is not even renamed on
        logger.error("trial_not_ended", extra={"reason": str(error)})  # noqa: TRY400 (a disk that refuses)


def _read(path: Path, kind: type[File]) -> File | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        logger.error("remote_settings_damaged", extra={"reason": str(error)})  # noqa: TRY400 (no defect of ours)
        return None


def _write(path: Path, content: msgspec.Struct) -> None:
    from edge_agent import store  # noqa: PLC0415 (with SQLite, which the runtime does without)

    store.write_file(path, msgspec.json.format(msgspec.json.encode(content)))

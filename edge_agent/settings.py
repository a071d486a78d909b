"""The agent's settings: ``agent.toml`` in the state directory, over it the environment.

Every key may be set as ``SKERRY_AGENT_<SECTION>__<KEY>``, such as ``SKERRY_AGENT_RUNTIME__PORT``.
Unknown keys are refused in both, so a misspelt setting never silently does nothing.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent.errors import AgentError

FILE_NAME = "agent.toml"
_PREFIX = "SKERRY_AGENT_"

Seconds = Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)]
Bytes = Annotated[int, msgspec.Meta(ge=1024)]
LogLevel = Literal["debug", "info", "warning", "error"]


class SettingsError(AgentError):
    """The settings cannot be read; the message names file or variable and key."""


class RuntimeSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the runtime process is told.

    Attributes:
        host: loopback address on which applications reach the V2 protocol over TCP.
        port: its port; 0 turns TCP off and leaves the Unix socket.
        threads: threads of one inference call inside the backend.
        max_request_bytes: a larger request is refused with 413.
        max_connections: further connections wait for one to close.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8500
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    max_request_bytes: Bytes = 64 * 1024 * 1024
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 512
    log_level: LogLevel = "info"


class ControlSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the control process is told.

    Attributes:
        telemetry_window_s: length of a telemetry window.
        probation_s: how long a new release must serve healthily before it is committed.
        report_interval_s: how often the reported state is sent even if nothing changed.
        outbox_max_messages: beyond it, the oldest unsent windows are merged.
        retry_initial_s: first pause after a failed attempt; it doubles, with jitter.
        retry_max_s: the longest pause.
    """

    telemetry_window_s: Seconds = 60.0
    probation_s: Seconds = 60.0
    report_interval_s: Seconds = 300.0
    outbox_max_messages: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 10_000
    retry_initial_s: Seconds = 1.0
    retry_max_s: Seconds = 300.0
    log_level: LogLevel = "info"


class AgentSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """All settings of the agent; each process is handed its own section."""

    runtime: RuntimeSettings = RuntimeSettings()
    control: ControlSettings = ControlSettings()


def load(state_root: Path, environment: Mapping[str, str]) -> AgentSettings:
    """Read the settings of a state directory.

    Raises:
        SettingsError: the file is not TOML, a key is unknown, or a value is out of range.
    """
    path = state_root / FILE_NAME
    try:
        table: dict[str, object] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        table = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read the settings {path}: {error}") from error
    _converted(table, f"the settings {path}", strict=True)
    for name, value in sorted(environment.items()):
        if name.startswith(_PREFIX):
            _overlay(table, name, value)
    return _converted(table, f"the settings (environment {_PREFIX}* over {path})", strict=False)


def _overlay(table: dict[str, object], name: str, value: str) -> None:
    section, separator, key = name.removeprefix(_PREFIX).lower().partition("__")
    if not separator:
        raise SettingsError(f"{name} is not a setting: use {_PREFIX}<SECTION>__<KEY>")
    entries = table.setdefault(section, {})
    if isinstance(entries, dict):
        entries[key] = value


def _converted(table: dict[str, object], where: str, *, strict: bool) -> AgentSettings:
    try:
        return msgspec.convert(table, AgentSettings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where} are wrong: {error}") from error

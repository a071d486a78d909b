"""Settings of a process that must run: a mistake in ``agent.toml`` stops no device.

`skerry agent run` refuses wrong settings while somebody is there to correct them. A process that is
started again later goes on with those that it last started with, kept beside the file, and says
so; without such a copy it takes the defaults, with which it serves what is committed.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edge_agent.errors import AgentError
from edge_agent.settings import FILE_NAME, SettingsError

logger = logging.getLogger(__name__)

Section = TypeVar("Section")
Load = Callable[[Path, Mapping[str, str], str], Section]
"""Reads a section from a state directory, an environment and a file's name; `SettingsError`."""


@dataclass(frozen=True, slots=True)
class Lasting(Generic[Section]):
    """Settings to run with.

    Attributes:
        problem: why they are not those of ``agent.toml``; empty if they are.
    """

    settings: Section
    problem: str = ""


def read(
    state_root: Path, environment: Mapping[str, str], *, process: str, load: Load[Section]
) -> Lasting[Section]:
    """Return the settings of a process, or those that it last ran with, or the defaults."""
    kept = f"last-good-{process}.toml"
    try:
        settings = load(state_root, environment, FILE_NAME)
    except SettingsError as error:
        return _instead(state_root, environment, kept, load, str(error))
    _keep(state_root / FILE_NAME, state_root / kept)
    return Lasting(settings)


def _instead(
    state_root: Path,
    environment: Mapping[str, str],
    kept: str,
    load: Load[Section],
    problem: str,
) -> Lasting[Section]:
    what = "the process goes on with the settings that it last started with"
    for overlay in (environment, {}):
        try:
            found = load(state_root, overlay, kept)
        except SettingsError:
            continue
        if not (state_root / kept).exists():
            what = "the process goes on with the defaults"
        return Lasting(found, f"{problem}; {what}")
    # A name that no file has: nothing but defaults.
    return Lasting(
        load(state_root, {}, f"{kept}.none"),
        f"{problem}; the process goes on with the defaults",
    )


def _keep(path: Path, kept: Path) -> None:
    """Copy the file if it has changed; a disk that refuses leaves the older copy."""
    if not path.exists() and not kept.exists():
        return
    try:
        content = path.read_bytes() if path.exists() else b""
        if kept.exists() and kept.read_bytes() == content:
            return
        from edge_agent import store  # noqa: PLC0415 (with SQLite, which the runtime does without)

        store.write_file(kept, content)
    except (OSError, AgentError) as error:
        logger.warning("settings_not_kept", extra={"reason": str(error)})

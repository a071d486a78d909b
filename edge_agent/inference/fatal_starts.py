"""Which release was being loaded when the runtime died: the third death in a row was the last.

A library that crashes on a model takes the whole process with it, and every start would load that
model again. So the boot notes what it is about to load and takes the note back when that came to an
end, good or bad. A note that is still there was left by a death. The supervisor forgets all of
it when it starts, because then somebody has started the agent anew and wants it tried.

The notes outlive a process, not a power cut: nothing waits for the disk.
"""

import contextlib
import logging
from collections.abc import Iterator

import msgspec

from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir

logger = logging.getLogger(__name__)

DEATHS = 3
"""So many in a row while it is loaded, and a release is left out."""

_MAX_BYTES = 1024 * 1024
_MAX_RELEASES = 256


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``run/starts.json``.

    Attributes:
        loading: the release that is being loaded, empty if none is.
        deaths: releases to how often the runtime has died in a row while it loaded them.
    """

    loading: str = ""
    deaths: dict[str, int] = {}


def after_a_start(notes: Notes) -> Notes:
    """Return the notes with the death that they tell of, if they do."""
    deaths = dict(notes.deaths)
    if notes.loading:
        deaths[notes.loading] = deaths.pop(notes.loading, 0) + 1
    return Notes(deaths=dict(list(deaths.items())[-_MAX_RELEASES:]))


class FatalStarts:
    """The notes of one life of the runtime, which must hold the pid file."""

    def __init__(self, state: StateDir) -> None:
        """Count the death before this life, if a release was being loaded then."""
        self._state = state
        found = self._read()
        self._notes = after_a_start(found)
        if found.loading:
            self._write()

    def refusal(self, release: ActiveRelease) -> str:
        """Say why a release is not loaded any more; empty if it may be."""
        deaths = self._notes.deaths.get(self._name(release), 0)
        if deaths < DEATHS:
            return ""
        return (
            f"loading it crashed the runtime in {deaths} starts in a row; it is left out so that "
            "the other models serve. Assign another version; or, to try this one again, start the "
            "agent anew: skerry agent stop, skerry agent run"
        )

    @contextlib.contextmanager
    def loading(self, release: ActiveRelease) -> Iterator[None]:
        """Note for the length of the block that a release is being loaded."""
        name = self._name(release)
        if self.refusal(release):
            yield
            return
        self._notes = msgspec.structs.replace(self._notes, loading=name)
        self._write()
        try:
            yield
        finally:
            self._survived(name)

    def interrupted(self) -> None:
        """Take the note back because somebody stops the process in the middle of its boot."""
        self._notes = msgspec.structs.replace(self._notes, loading="")
        self._write()

    def _survived(self, name: str) -> None:
        deaths = {other: count for other, count in self._notes.deaths.items() if other != name}
        self._notes = Notes(deaths=deaths)
        self._write()

    def _name(self, release: ActiveRelease) -> str:
        """Name a release as it lies there: a file that was fetched again is another one."""
        try:
            stamp = self._state.blob(release.sha256).stat().st_mtime_ns
        except OSError:
            stamp = 0
        parts = (release.family, release.version, release.variant, release.sha256, str(stamp))
        return " ".join(parts)

    def _read(self) -> Notes:
        try:
            with self._state.starts.open("rb") as file:
                return msgspec.json.decode(file.read(_MAX_BYTES), type=Notes)
        except FileNotFoundError:
            return Notes()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.warning("starts_not_known", extra={"reason": str(error)})
            return Notes()

    def _write(self) -> None:
        path = self._state.starts
        temporary = path.with_name(f".{path.name}.new")
        try:
            temporary.write_bytes(msgspec.json.encode(self._notes))
            temporary.replace(path)
        except OSError as error:
            # A device that can note nothing still serves.
            logger.warning("start_not_noted", extra={"reason": str(error)})

"""Which release was being loaded when the runtime died: the third death in a row was the last.

A load that does not end is ended, together with the process, and is the last at once: everybody has
waited for it long enough. The kernel does that by an alarm, since a library that hangs may hold the
interpreter, too.

A library that crashes on a model takes the whole process with it, and every start would load that
model again. So the boot notes what it is about to load and takes the note back when that came to an
end, good or bad. A note that is still there was left by a death. The supervisor forgets all of
it when it starts, because then somebody has started the agent anew and wants it tried.

The notes outlive a process, not a power cut: nothing waits for the disk.
"""

import contextlib
import logging
import signal
import time
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
        ends_s: when the alarm ends the load, on the clock that all processes of a boot share; 0
            without an alarm.
        deaths: releases to how often the runtime has died in a row while it loaded them.
        hung: those of them whose load had to be ended.
    """

    loading: str = ""
    ends_s: float = 0.0
    deaths: dict[str, int] = {}
    hung: list[str] = []


def after_a_start(notes: Notes, *, now_s: float) -> Notes:
    """Return the notes with the death that they tell of, if they do."""
    deaths, hung = dict(notes.deaths), list(notes.hung)
    if notes.loading:
        count = deaths.pop(notes.loading, 0) + 1
        if 0 < notes.ends_s <= now_s:
            count = DEATHS
            hung.append(notes.loading)
        deaths[notes.loading] = count
    return Notes(deaths=dict(list(deaths.items())[-_MAX_RELEASES:]), hung=hung[-_MAX_RELEASES:])


@contextlib.contextmanager
def _process_ended_after(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whatever this process inherited
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class FatalStarts:
    """The notes of one life of the runtime, which must hold the pid file."""

    def __init__(self, state: StateDir, *, load_s: float | None = None) -> None:
        """Count the death before this life, if a release was being loaded then.

        Args:
            state: where the notes are.
            load_s: after so long a load ends the process; None for never.
        """
        self._state = state
        self._load_s = load_s
        found = self._read()
        self._notes = after_a_start(found, now_s=time.monotonic())
        if found.loading:
            self._write()
            logger.error("start_was_fatal", extra={"release": found.loading})

    def refusal(self, release: ActiveRelease) -> str:
        """Say why a release is not loaded any more; empty if it may be."""
        name = self._name(release)
        deaths = self._notes.deaths.get(name, 0)
        if deaths < DEATHS:
            return ""
        what = f"crashed the runtime in {deaths} starts in a row"
        if name in self._notes.hung:
            what = "had not ended within runtime.load_s at a start"
        return (
            f"loading it {what}; it is left out so that "
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
        ends_s = 0.0 if self._load_s is None else time.monotonic() + self._load_s
        self._notes = msgspec.structs.replace(self._notes, loading=name, ends_s=ends_s)
        self._write()
        try:
            with _process_ended_after(self._load_s):
                yield
        finally:
            self._survived(name)

    def interrupted(self) -> None:
        """Take the note back because somebody stops the process in the middle of its boot."""
        self._notes = msgspec.structs.replace(self._notes, loading="")
        self._write()

    def _survived(self, name: str) -> None:
        deaths = {other: count for other, count in self._notes.deaths.items() if other != name}
        hung = [other for other in self._notes.hung if other != name]
        self._notes = Notes(deaths=deaths, hung=hung)
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

"""A fleet of simulated devices in a few processes, and what can be read of it from outside.

Each device enrols as a device does. What it runs is read from its own ``active.json``, and what it
ever touched from the log of its runtime: neither asks the server.
"""

import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from pathlib import Path

import msgspec

from edge_agent import enroll
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.settings import ControlSettings
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_protocol.claims import ClaimBundle
from provisioning.claim_issue import ClaimIssuer
from tests.simulators import child_process
from tests.unit.fleet_server.authority import FAMILY, PASSPHRASE, Fleet

SETTINGS_FILE = "control.json"
_STOPS_WITHIN_S = 60.0
_ENROLLING = 4


class RuntimeNote(msgspec.Struct, frozen=True):
    """What the runtime of a device was told: ``load``, ``activate`` or ``unload``."""

    at_s: float
    what: str
    version: str


def runtime_log(state: StateDir) -> Path:
    """Return the log of a device's runtime."""
    return state.root.with_suffix(".runtime")


@dataclass(frozen=True)
class Devices:
    """The devices of one folder.

    Attributes:
        states: of each device, by its id.
    """

    folder: Path
    states: dict[str, StateDir]

    @classmethod
    def enrolled(
        cls, fleet: Fleet, url: str, folder: Path, count: int, settings: ControlSettings
    ) -> "Devices":
        """Make devices and enrol them as `skerry agent enroll` does."""
        folder.mkdir()
        (folder / SETTINGS_FILE).write_bytes(msgspec.json.encode(settings))
        issuer = ClaimIssuer(fleet.authority, passphrase=PASSPHRASE)
        names = [f"cam-{number:04}" for number in range(count)]
        issued = [claims.decode(issuer.issue(name, now=datetime.now(UTC))) for name in names]
        with ThreadPoolExecutor(_ENROLLING) as pool:
            states = list(pool.map(partial(_enrolled, url, folder), issued))
        return cls(folder, dict(zip(names, states, strict=True)))

    @contextmanager
    def running(self, *, processes: int = 1) -> Iterator[None]:
        """Run them while the block lasts; nothing unexpected may have happened to them."""
        share = -(-len(self.states) // processes)
        starts = range(0, len(self.states), share)
        children = [self._start(first, min(first + share, len(self.states))) for first in starts]
        try:
            yield
            assert all(child.poll() is None for child in children), self.log()
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(_STOPS_WITHIN_S)
        assert "Traceback" not in self.log(), self.log()[-5000:]

    def log(self) -> str:
        """Return what the processes complained of."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def running_versions(self) -> dict[str, str | None]:
        """Return what each device has committed to."""
        return {name: _committed(state) for name, state in self.states.items()}

    def serving(self, version: str) -> int:
        """Return how many devices have committed to a version."""
        return sum(each == version for each in self.running_versions().values())

    def touched(self, version: str) -> set[str]:
        """Return the devices whose runtime was ever told to load a version."""
        return {
            name
            for name in self.states
            if any(note.what == "load" and note.version == version for note in self.notes(name))
        }

    def most_on_trial(self, version: str) -> int:
        """Return how many devices at once had loaded a version and not yet dropped one for it."""
        changes: list[tuple[float, int]] = []
        for name in self.states:
            begun = False
            for note in self.notes(name):
                if note.what == "load" and note.version == version and not begun:
                    begun = True
                    changes.append((note.at_s, 1))
                elif note.what == "unload" and begun:
                    begun = False
                    changes.append((note.at_s, -1))
        return max(accumulate(change for _, change in sorted(changes)), default=0)

    def notes(self, name: str) -> Sequence[RuntimeNote]:
        """Return what a device's runtime was told, in order."""
        log = runtime_log(self.states[name])
        lines = log.read_bytes().splitlines() if log.exists() else []
        return [msgspec.json.decode(line, type=RuntimeNote) for line in lines]

    def _start(self, first: int, last: int) -> subprocess.Popen[bytes]:
        command = child_process.command("tests.simulators.fleet_agents", self.folder, first, last)
        with (self.folder / f"{first:04}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=child_process.ROOT
            )


def _enrolled(url: str, folder: Path, claim: ClaimBundle) -> StateDir:
    state = StateDir(folder / claim.device_id)
    enroll.enroll(state=state, server_url=url, claim=claim, post=enroll.https_post)
    return state


def _committed(state: StateDir) -> str | None:
    release = ActiveSetFile(state.active_set).read().get(FAMILY)
    return None if release is None else release.version

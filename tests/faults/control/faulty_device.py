"""A process that updates one device again and again while the system calls fail at random.

libfiu stands between Python (and SQLite) and the C library: `open`, `read`, `write`, `fsync`,
`rename`, `unlink` and their like fail with an errno of theirs. The process has to be started with
libfiu preloaded; `test_random_io_faults` does. Faults are on while the device works and off while
it is looked at. Prints one JSON line with what was counted; the same seed gives the same faults as
far as the threads of the process allow.
"""

import asyncio
import ctypes
import hashlib
import json
import logging
import random
import sqlite3
import sys
from pathlib import Path

from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.runtime_client import RuntimeFaultError
from edge_agent.errors import AgentError
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.update_states import UpdateState
from tests.faults.control.update_scenarios import settle_under_calls
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import Release, release
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director

_FAULTS = (b"posix/io/oc/*", b"posix/io/rw/*", b"posix/io/sync/*", b"posix/io/dir/*")
"""Files and folders; not `posix/io/net`, through which the event loop wakes itself up."""

_ONE_IN = (20, 100, 500, 2000)
"""How rarely a call fails: from an update that hardly gets on to one that hardly notices."""

_STEPS = 25


class Counted:
    """What was seen."""

    def __init__(self) -> None:
        self.updates = 0
        self.wrong: list[str] = []
        self.unverified = 0
        self.failed_steps = 0
        self.states: dict[str, int] = {}
        self.unexpected: dict[str, int] = {}
        self.restarts = 0
        self.loads = 0

    def look(self, number: int, device: ControlDevice) -> None:
        """Take note of a device that does not serve what it shall."""
        if not _serves(device):
            serving, record = device.runtime.serving("animals"), device.record()
            self.wrong.append(
                f"update {number}: {serving} serves, {device.active()} is committed, "
                f"{record.version} is in {record.state}"
            )


class Faults:
    """Lets system calls of this process fail."""

    def __init__(self) -> None:
        self._fiu = ctypes.CDLL("libfiu.so.0")
        self._fiu.fiu_enable_random.argtypes = [
            ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_float,
        ]  # fmt: skip
        self._on = False

    def on(self, probability: float) -> None:
        """Let each call fail with a probability."""
        self.off()
        for name in _FAULTS:
            if self._fiu.fiu_enable_random(name, 1, None, 0, probability) != 0:
                raise SystemExit("libfiu takes no faults")
        self._on = True

    def off(self) -> None:
        """Let every call do what it shall."""
        if self._on:
            for name in _FAULTS:
                self._fiu.fiu_disable(name)
            self._on = False


def _watch_loads(device: ControlDevice, counted: Counted) -> None:
    """Look at the bytes of each file that the runtime loads, as the runtime would read them."""
    load = device.runtime.load

    def checked(release: ActiveRelease) -> None:
        try:
            content = device.state.blob(release.sha256).read_bytes()
        except OSError as error:
            raise RuntimeFaultError(f"its file cannot be read: {error}") from error
        counted.loads += 1
        counted.unverified += hashlib.sha256(content).hexdigest() != release.sha256
        load(release)

    device.runtime.load = checked  # type: ignore[method-assign]


async def _work(device: ControlDevice, counted: Counted, document: bytes) -> None:
    """Let control work as its tasks do: an error ends a round, and the next one follows."""
    pending = True
    for _ in range(_STEPS):
        try:
            if pending:
                await device.receive(document)
                pending = False
            await device.step()
        except AgentError:
            counted.failed_steps += 1
        except (OSError, sqlite3.Error) as error:  # `lasting` begins the task anew after these
            kind = type(error).__name__
            counted.unexpected[kind] = counted.unexpected.get(kind, 0) + 1
        device.clock.advance(1.0)


async def _run(root: Path, updates: int, seed: int) -> Counted:
    counted, chance, faults = Counted(), random.Random(seed), Faults()  # noqa: S311 (repeatable)
    repository, director = SimulatedRepository(), Director()
    releases = [release("1.0.0"), release("1.1.0")]
    repository.add(*releases)
    device = ControlDevice(root=root, repository=repository, director=director)
    _watch_loads(device, counted)
    await device.parts.prepare()
    await device.receive(director.assign(DEVICE, 1, releases[:1]))
    await settle_under_calls(device)
    for number in range(updates):
        wanted = releases[(number + 1) % 2]
        document = director.assign(DEVICE, number + 2, [wanted])
        faults.on(1 / chance.choice(_ONE_IN))
        try:
            await _work(device, counted, document)
        finally:
            faults.off()
        state = str(device.record().state)
        counted.states[state] = counted.states.get(state, 0) + 1
        counted.look(number, device)
        if chance.random() < 0.2:
            counted.restarts += 1
            await device.restarted()
            if chance.random() < 0.5:
                device.runtime.boot()
                counted.look(number, device)
        await device.receive(document)
        await settle_under_calls(device)
        counted.updates += 1
        counted.look(number, device)
        leftovers = _leftovers(device, wanted)
        if leftovers:
            counted.wrong.append(f"update {number}: too many or missing: {sorted(leftovers)}")
    await device.kill()
    return counted


def _serves(device: ControlDevice) -> bool:
    """Say whether the device serves what it has committed to, or a candidate on probation."""
    serving = device.runtime.serving("animals")
    active = ActiveSetFile(device.state.active_set).read()["animals"].version
    record = device.record()
    watched = record.state is UpdateState.PROBATION and serving == record.version
    return serving == active or watched


def _leftovers(device: ControlDevice, wanted: Release) -> set[str]:
    """Return what lies beside the blobs of what is committed, and what is missing of these.

    A whole file is written under one temporary name, which stays if its removal fails, too, and is
    taken again by the next write: it never becomes more.
    """
    if device.active()["animals"] != wanted.manifest.version:
        return set()
    return {path.name for path in device.state.blobs.iterdir()} ^ {
        hashlib.sha256(content).hexdigest() for content in (wanted.manifest_bytes, wanted.model)
    }


def main(folder: str, updates: str, seed: str) -> None:
    """Run a campaign in a folder."""
    logging.disable(logging.CRITICAL)
    counted = asyncio.run(_run(Path(folder) / "d", int(updates), int(seed)))
    sys.stdout.write(json.dumps(vars(counted)) + "\n")

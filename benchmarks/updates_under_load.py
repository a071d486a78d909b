"""1,000 updates under live load: failed requests, and what calls around the switch wait.

A demo fleet of one device: real server, broker, runtime, control and supervisor. An application
calls the small reference model 50 times a second on one connection while the device goes back and
forth between two releases of it: every update is a signed assignment, refreshed metadata,
downloads, golden check, switch, probation, commit. Blocks of updates and quiet ones take turns.

The application sees the switch: the answers name another version. Calls within a quarter of a
second of it are compared with those of the quiet blocks. ``UPDATES=100`` makes it shorter.
"""

import bisect
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.measuring.elsewhere import give_way
from benchmarks.measuring.other_load import OtherLoad
from benchmarks.report import Row, at_least, at_most, figure
from edge_agent.control.active_set import ActiveSetFile, DamagedActiveSetError
from edge_agent.state_dir import StateDir
from skerry.demo import images
from skerry.demo.application import Application
from skerry.demo.errors import DemoError
from skerry.demo.images import LabelledImages
from skerry.demo.layout import DEVICES, FAMILY, DemoDir, Ports, reference_model
from skerry.demo.world import World

_UPDATES = int(os.environ.get("UPDATES", "1000"))
_RATE_PER_S = 50.0
_BLOCK = 20
_QUIET_S = 5.0
_AROUND_S = 0.25
_COMMITS_WITHIN_S = 60.0
_MAX_RATIO = 1.3
_RELEASES = {"1.0.0": "fp32", "1.1.0": "int8"}
_SETTINGS = """\
[runtime]
port = {port}

[control]
probation_s = 0.2
retry_initial_s = 0.2
retry_max_s = 2.0
"""
HOW = (
    f"UPDATES={_UPDATES} make bench NAME=updates_under_load (one device, {_RATE_PER_S:g} calls a "
    f"second over the Unix socket with binary tensors; blocks of {_BLOCK} updates and of "
    f"{_QUIET_S:g} s without any; server and broker on the same two cores, at the lowest priority)"
)


@dataclass
class _Load:
    """An application that calls at a steady rate from a thread of its own.

    Attributes:
        calls: when each began on the monotonic clock, its latency in seconds, who answered.
    """

    application: Application
    inputs: LabelledImages
    calls: list[tuple[float, float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    retried: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the call under way and end."""
        self._stopping.set()
        self._thread.join()
        self.application.close()

    def _run(self) -> None:
        due_s = time.monotonic()
        image = self.inputs.inputs[:1]
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + 1 / _RATE_PER_S, time.monotonic())
            began_s = time.monotonic()
            try:
                answer = self.application.classify(image, "unix", "binary")
            except DemoError as error:
                self.failed.append(str(error))
                continue
            self.retried += answer.attempts - 1
            self.calls.append((began_s, answer.latency_s, answer.version))


def run() -> list[Row]:
    """Update back and forth under load."""
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        world = World(
            directory=DemoDir(Path(folder) / "d"),
            ports=Ports.free(),
            model=(model := reference_model()),
            images=images.load(model),
        )
        try:
            state = _prepare(world)
            return _updates(world, state)
        finally:
            world.stop()


def _prepare(world: World) -> StateDir:
    world.provision()
    world.start_server()
    give_way(world.server_pid())
    _until(world.api("viewer").ready)
    state = StateDir(world.directory.device(DEVICES[0]))
    world.enroll(DEVICES[0], settings=_SETTINGS.format(port=world.ports.devices[0]))
    for version, variant in _RELEASES.items():
        world.publish(version, variant=variant)
    world.assign("1.0.0", DEVICES[:1])
    _until(partial(_has_committed, state, "1.0.0"))
    return state


def _updates(world: World, state: StateDir) -> list[Row]:
    others = OtherLoad()
    load = _Load(world.application(DEVICES[0]), world.images)
    quiet: list[tuple[float, float]] = []
    began_s, spent_s = time.monotonic(), 0.0
    done = 0
    try:
        while done < _UPDATES:
            quiet_s = time.monotonic()
            time.sleep(_QUIET_S)
            quiet.append((quiet_s, time.monotonic()))
            block_s = time.monotonic()
            for _ in range(min(_BLOCK, _UPDATES - done)):
                wanted = "1.0.0" if _committed(state) == "1.1.0" else "1.1.0"
                world.assign(wanted, DEVICES[:1])
                _until(partial(_has_committed, state, wanted))
                done += 1
            spent_s += time.monotonic() - block_s
    finally:
        load.stop()
    lasted_s = time.monotonic() - began_s
    return _rows(load, quiet, done, (spent_s, lasted_s), others.cores())


def _rows(
    load: _Load,
    quiet: list[tuple[float, float]],
    done: int,
    seconds: tuple[float, float],
    others_cores: float,
) -> list[Row]:
    switches = [later[0] for earlier, later in pairwise(load.calls) if earlier[2] != later[2]]
    around = [took for at, took, _ in load.calls if _is_near(at, switches)]
    calm = [took for at, took, _ in load.calls if any(a <= at < b for a, b in quiet)]
    p99, calm_p99 = (float(np.percentile(taken, 99)) * 1000 for taken in (around, calm))
    p50, calm_p50 = (float(np.percentile(taken, 50)) * 1000 for taken in (around, calm))
    return [
        at_least("updates committed", done, "updates", _UPDATES, HOW),
        at_most("failed requests", len(load.failed), "requests", 0, HOW),
        at_most("requests tried again", load.retried, "requests", 0, HOW),
        at_most("p99 around the switch", round(p99 / calm_p99, 2), "of quiet", _MAX_RATIO, HOW),
        figure("p50 around the switch", round(p50 / calm_p50, 2), "of quiet", HOW),
        figure("p99 around the switch", round(p99, 2), "ms", HOW),
        figure("p99 quiet", round(calm_p99, 2), "ms", HOW),
        figure("calls around a switch", len(around), "calls", HOW),
        figure("calls in quiet blocks", len(calm), "calls", HOW),
        figure("calls", len(load.calls), "calls", HOW),
        figure("switches that the application saw", len(switches), "switches", HOW),
        figure("an update takes", round(seconds[0] / done, 2), "s", HOW),
        figure("all of it took", round(seconds[1], 0), "s", HOW),
        figure("the machine meanwhile: kept busy by others", round(others_cores, 2), "cores", HOW),
    ]


def _is_near(at: float, moments: list[float]) -> bool:
    where = bisect.bisect_left(moments, at - _AROUND_S)
    return where < len(moments) and moments[where] <= at + _AROUND_S


def _has_committed(state: StateDir, version: str) -> bool:
    return _committed(state) == version


def _committed(state: StateDir) -> str | None:
    """Return what the device has committed to, read where the runtime would read it."""
    try:
        found = ActiveSetFile(state.active_set).read().get(FAMILY)
    except DamagedActiveSetError:
        return None
    return None if found is None else found.version


def _until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _COMMITS_WITHIN_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit("the device did not commit in time")
        time.sleep(0.02)

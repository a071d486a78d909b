"""1,000 updates under live load: failed requests, and what calls around the switch wait.

A demo fleet of one device: real server, broker, runtime, control and supervisor. An application, a
process of its own, calls the small reference model 50 times a second on one connection while the
device goes back and forth between two releases of it: every update is a signed assignment,
refreshed metadata, downloads, golden check, switch, probation, commit. Blocks of updates and quiet
ones take turns; a quiet one begins when the device has tidied up after the last update.

The application sees the switch: the answers name another version. Calls within a quarter of a
second of it, in which the trial and its load lie too, are compared with those of the quiet blocks.
``UPDATES=100`` makes it shorter.
"""

import bisect
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.measuring.elsewhere import give_way
from benchmarks.measuring.other_load import OtherLoad
from benchmarks.measuring.steady_calls import Call, Records, SteadyCalls
from benchmarks.report import Row, at_least, at_most, figure
from edge_agent.control.active_set import ActiveSetFile, DamagedActiveSetError
from edge_agent.state_dir import StateDir
from skerry.demo import images
from skerry.demo.layout import DEVICES, FAMILY, DemoDir, Ports, reference_model
from skerry.demo.world import World

_UPDATES = int(os.environ.get("UPDATES", "1000"))
_WANTED = 1000
_RATE_PER_S = 50.0
_BLOCK = 41
"""Odd: each release in turn serves in the quiet block that follows."""

_SETTLES_S = 1.0
"""After a block: the old model leaves memory, the device tidies up."""

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
    f"{_QUIET_S:g} s without any; device and application at normal priority, server and broker on "
    "one of the two cores, at the lowest and taking the processor from nobody)"
)


@dataclass(frozen=True)
class _Times:
    """When there was no update, and when one followed the other; on the monotonic clock."""

    quiet: list[tuple[float, float]]
    busy: list[tuple[float, float]]


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
    records = world.directory.root / "calls.bin"
    application = SteadyCalls(state.runtime_socket, rate_per_s=_RATE_PER_S, records=records)
    times = _Times([], [])
    began_s = time.monotonic()
    done = 0
    try:
        while done < _UPDATES:
            time.sleep(_SETTLES_S)
            quiet_s = time.monotonic()
            time.sleep(_QUIET_S)
            times.quiet.append((quiet_s, time.monotonic()))
            for _ in range(min(_BLOCK, _UPDATES - done)):
                wanted = "1.0.0" if _committed(state) == "1.1.0" else "1.1.0"
                world.assign(wanted, DEVICES[:1])
                _until(partial(_has_committed, state, wanted))
                done += 1
            times.busy.append((times.quiet[-1][1], time.monotonic()))
    finally:
        seen = application.stop()
    lasted_s = time.monotonic() - began_s
    return _rows(seen, times, done, lasted_s, others.cores())


def _rows(
    seen: Records, times: _Times, done: int, lasted_s: float, others_cores: float
) -> list[Row]:
    calls = seen.calls
    switches = [
        later.began_s for earlier, later in pairwise(calls) if earlier.version != later.version
    ]
    around = _ms(call for call in calls if _is_near(call.began_s, switches))
    calm = _ms(call for call in calls if _is_within(call.began_s, times.quiet))
    busy = _ms(call for call in calls if _is_within(call.began_s, times.busy))
    p99, calm_p99, busy_p99 = (float(np.percentile(taken, 99)) for taken in (around, calm, busy))
    p50, calm_p50 = (float(np.percentile(taken, 50)) for taken in (around, calm))
    late_ms = float(np.percentile([call.late_s for call in calls], 99)) * 1000
    update_s = sum(end - begin for begin, end in times.busy) / done
    return [
        at_least("updates committed", done, "updates", _WANTED, HOW),
        at_least("switches that the application saw", len(switches), "switches", done, HOW),
        at_most("failed requests", len(seen.failed), "requests", 0, HOW),
        at_most("p99 around the switch", round(p99 / calm_p99, 2), "of quiet", _MAX_RATIO, HOW),
        figure("p50 around the switch", round(p50 / calm_p50, 2), "of quiet", HOW),
        figure("p99 all through updates", round(busy_p99 / calm_p99, 2), "of quiet", HOW),
        figure("p99 around the switch", round(p99, 2), "ms", HOW),
        figure("p99 quiet", round(calm_p99, 2), "ms", HOW),
        figure("p50 quiet", round(calm_p50, 2), "ms", HOW),
        figure("longest call", round(max(busy), 2), "ms", HOW),
        figure("calls around a switch", len(around), "calls", HOW),
        figure("calls in quiet blocks", len(calm), "calls", HOW),
        figure("calls", len(calls), "calls", HOW),
        figure("the application itself was late (p99)", round(late_ms, 2), "ms", HOW),
        figure("an update takes", round(update_s, 2), "s", HOW),
        figure("all of it took", round(lasted_s, 0), "s", HOW),
        figure(
            "device, server and others kept busy meanwhile", round(others_cores, 2), "cores", HOW
        ),
    ]


def _ms(calls: Iterable[Call]) -> list[float]:
    return [call.latency_s * 1000 for call in calls]


def _is_within(at: float, spans: list[tuple[float, float]]) -> bool:
    return any(begin <= at < end for begin, end in spans)


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
        time.sleep(0.05)

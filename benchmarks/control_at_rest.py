"""What the control process takes at rest: enrolled, connected to a broker, nothing to do.

A demo fleet of one device on this machine: real server, real broker over TLS, real runtime with the
reference model, real control process. After a while in which nothing is assigned any more, its
memory and processor time are read from `/proc`, with the settings of a device in the field (a
telemetry window a minute). It runs in an environment of its own, installed as a user installs it: a
library of the tests that some other library looks for would take memory of the control process.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.measuring import environments
from benchmarks.measuring.other_load import OtherLoad
from benchmarks.report import Row, at_most, figure
from edge_agent import pid_file
from edge_agent.state_dir import StateDir
from skerry.demo import images
from skerry.demo.layout import DEVICES, DemoDir, Ports, reference_model
from skerry.demo.world import World

_MAX_MIB = 45.0
_MAX_PERCENT = 0.2
_SETTLES_WITHIN_S = 120.0
_QUIET_S = 10.0
_REST_S = 120.0
_SETTINGS = """\
[runtime]
port = {port}

[control]
probation_s = 1.0
"""
HOW = (
    f"make bench NAME=control_at_rest ({_REST_S:g} s; server, broker and runtime on the same two "
    "cores; the pinned requirements of the demo; memory and processor time from /proc/PID)"
)


def run() -> list[Row]:
    """Measure in an environment without the tools of the tests."""
    python = environments.of_the_demo()
    answer = subprocess.run(
        [str(python), "-m", "benchmarks.control_at_rest"],
        cwd=environments.PROJECT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return msgspec.json.decode(answer.stdout, type=list[Row])


def measure() -> list[Row]:
    """Let a device come to rest and read what its control process takes."""
    model = reference_model()
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        world = World(
            directory=DemoDir(Path(folder) / "d"),
            ports=Ports.free(),
            model=model,
            images=images.load(model),
        )
        try:
            return _measured(_at_rest(world))
        finally:
            world.stop()


def _at_rest(world: World) -> int:
    """Bring a device through an update with the settings of the field; return control's pid."""
    world.provision()
    world.start_server()
    _until(world.api("viewer").ready)
    state = StateDir(world.directory.device(DEVICES[0]))
    world.enroll(DEVICES[0], settings=_SETTINGS.format(port=world.ports.devices[0]))
    for version, variant in (("1.0.0", "fp32"), ("1.1.0", "int8")):
        world.publish(version, variant=variant)
        world.assign(version, DEVICES[:1])
        _until(partial(_has_committed, world, version))
    time.sleep(_QUIET_S)
    pid = pid_file.holder(state.pid_file("control"))
    if pid is None:
        raise SystemExit("the control process is gone")
    return pid


def _has_committed(world: World, version: str) -> bool:
    return world.committed(DEVICES[0]) == version


def _measured(pid: int) -> list[Row]:
    others = OtherLoad()
    began_s, cpu_s, switches = time.monotonic(), _cpu_s(pid), _wake_ups(pid)
    time.sleep(_REST_S)
    lasted_s = time.monotonic() - began_s
    percent = 100 * (_cpu_s(pid) - cpu_s) / lasted_s
    wake_ups = (_wake_ups(pid) - switches) / lasted_s
    memory = _memory_mib(pid)
    return [
        at_most("resident", round(memory["VmRSS"], 1), "MiB", _MAX_MIB, HOW),
        at_most("processor time", round(percent, 3), "% of a core", _MAX_PERCENT, HOW),
        figure("resident, of that not backed by files", round(memory["RssAnon"], 1), "MiB", HOW),
        figure("wake-ups", round(wake_ups, 2), "per second", HOW),
        figure(
            "the machine meanwhile: kept busy by others", round(others.cores(), 2), "cores", HOW
        ),
    ]


def _cpu_s(pid: int) -> float:
    """Return the processor time of all threads (proc(5): schedstat counts nanoseconds)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _wake_ups(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        total += int(next(line for line in lines if line.startswith("voluntary")).split()[1])
    return total


def _memory_mib(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.split() for line in lines)
    return {words[0][:-1]: int(words[1]) / 1024 for words in fields if words[-1] == "kB"}


def _until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SETTLES_WITHIN_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit("the device did not come to rest in time")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure()))

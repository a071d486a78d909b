"""What the runtime process takes with EfficientNet-Lite0 in INT8: memory, and time to answer."""

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.http_client import HttpClientError
from benchmarks.measuring.other_load import OtherLoad
from benchmarks.models.bench_models import (
    BenchModel,
    efficientnet_lite0_onnx,
    efficientnet_lite0_tflite,
)
from benchmarks.peers.skerry_peer import SkerryPeer, committed_state, runtime_status
from benchmarks.report import Row, at_most, figure

_STARTS = 7
_CALLS = 200
_MAX_START_S = 0.6
_MAX_MIB = {"ONNX Runtime": 75, "LiteRT": 60}
HOW = (
    f"make bench NAME=runtime_memory (median of {_STARTS} starts; the files are in the page cache; "
    f"memory from /proc/PID/status after {_CALLS} calls; the time runs from fork to an answer)"
)


@dataclass(frozen=True, slots=True)
class _Start:
    seconds: float
    resident_mib: float
    anonymous_mib: float
    asked_mib: float


def run() -> list[Row]:
    """Measure each backend that the runtime has here."""
    others = OtherLoad()
    rows = []
    models = {"ONNX Runtime": efficientnet_lite0_onnx(), "LiteRT": efficientnet_lite0_tflite()}
    for backend, model in models.items():
        reason = _why_not(model)
        if reason:
            print(f"{backend} is not measured, the runtime does not load its model: {reason}")
            continue
        rows += _rows(backend, [_start(model) for _ in range(_STARTS)])
    busy = round(others.cores(), 2)
    return [*rows, figure("the machine meanwhile: kept busy by others", busy, "cores", HOW)]


def _rows(backend: str, starts: list[_Start]) -> list[Row]:
    def median(values: list[float], digits: int) -> float:
        return round(statistics.median(values), digits)

    return [
        at_most(
            f"{backend}: resident",
            median([start.resident_mib for start in starts], 1),
            "MiB",
            _MAX_MIB[backend],
            HOW,
        ),
        figure(
            f"{backend}: of that not backed by files",
            median([start.anonymous_mib for start in starts], 1),
            "MiB",
            HOW,
        ),
        at_most(
            f"{backend}: resident once control has asked for its status",
            median([start.asked_mib for start in starts], 1),
            "MiB",
            _MAX_MIB[backend],
            HOW,
        ),
        at_most(
            f"{backend}: start to first answer",
            median([start.seconds for start in starts], 3),
            "s",
            _MAX_START_S,
            HOW,
        ),
        figure(
            f"{backend}: start to first answer, slowest",
            round(max(start.seconds for start in starts), 3),
            "s",
            HOW,
        ),
    ]


def _why_not(model: BenchModel) -> str | None:
    """Return why the runtime cannot serve the model, None if it can."""
    peer = SkerryPeer()
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        state = committed_state(model, Path(folder))
        with peer.launch(model, state) as server:

            def ready() -> bool:
                return state.admin_socket.exists()

            server.wait_until(ready)
            return runtime_status(state).failed.get(model.name)


def _start(model: BenchModel) -> _Start:
    peer = SkerryPeer()
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        state = committed_state(model, Path(folder))

        def answered() -> bool:
            try:
                caller = peer.connect(peer.protocols[0])
            except OSError:
                return False
            try:
                caller.call(model.sample)
            except (HttpClientError, OSError):
                return False
            finally:
                caller.close()
            return True

        with peer.launch(model, state) as server:
            seconds = server.wait_until(answered)
            caller = peer.connect(peer.protocols[0])
            for _ in range(_CALLS):
                caller.call(model.sample)
            caller.close()
            memory = _memory_mib(server.pid)
            # Control asks this of every runtime, so what the answer takes is part of its size.
            runtime_status(state)
            asked = _memory_mib(server.pid)
    return _Start(seconds, memory["VmRSS"], memory["RssAnon"], asked["VmRSS"])


def _memory_mib(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.split() for line in lines)
    return {words[0][:-1]: int(words[1]) / 1024 for words in fields if words[-1] == "kB"}

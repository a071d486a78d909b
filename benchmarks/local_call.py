"""What a local call costs: Skerry and other servers beside the bare runtime, all in one run.

Two questions. How much does the way to the model and back add to a call, with an image's 602 kB in
FP32 and a model that computes nothing? And what is left of it with a model that works,
EfficientNet-Lite0 in INT8? Every server has one worker and gives ONNX Runtime one thread; one
caller sends one call at a time over a connection that it keeps.

EfficientNet takes the image's pixels, one byte each, as integer-only files do. What the same
network costs an application that turns them into FP32 first, is printed beside it.

What one caller waits for is about the protocol, so caller and servers share one processor: on two,
the time that a processor of a virtual machine takes to wake up is as long as the protocol's and
changes from run to run. What Skerry comes to then is printed beside it, without a goal. Throughput
is a question to all processors: there two callers keep one model at work.

Every figure comes from several rounds with processes of their own; see `fresh_process`.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.measuring.fresh_process import in_fresh_processes
from benchmarks.measuring.interleaved import Spread, Times, interleave
from benchmarks.measuring.other_load import OtherLoad
from benchmarks.models.bench_models import (
    Array,
    BenchModel,
    efficientnet_lite0_onnx,
    efficientnet_lite0_pixels,
    first_values,
)
from benchmarks.peers.kserve_peer import KservePeer
from benchmarks.peers.litserve_peer import LitservePeer
from benchmarks.peers.mlserver_peer import MlserverPeer
from benchmarks.peers.peer import Peer
from benchmarks.peers.programs.onnx_session import open_session
from benchmarks.peers.skerry_peer import SkerryPeer
from benchmarks.report import Row, at_least, at_most, figure

_ROUNDS = 4
_TURNS = 25
_CALLS_PER_TURN = 20
_BARE = "bare session.run"
_SOCKET = f"{SkerryPeer.name}, {SkerryPeer.protocols[0]}"
_BUSY_CALLERS = 2
_BUSY_ROUNDS = 10
_BUSY_TURNS = 6
_BUSY_S = 0.4
"""Short turns: a machine shared with others is another one a second later."""
_MAX_ADDED_US = {_SOCKET: 250, f"{SkerryPeer.name}, {SkerryPeer.protocols[2]}": 80}
_MIN_THROUGHPUT = 0.95
_MAX_P99 = 1.2
HOW = (
    "make bench NAME=local_call (all contenders in turns within one run, at most "
    f"{_ROUNDS} x {_TURNS} x {_CALLS_PER_TURN} calls each, all processes anew {_ROUNDS} times, "
    f"onnxruntime {version('onnxruntime')} with 1 thread in all)"
)

Contenders = Mapping[str, Callable[[Array], Array]]


def run() -> list[Row]:
    """Measure both models."""
    others = OtherLoad()
    nothing, network, fed = "602 kB, no work", "EfficientNet-Lite0 INT8", "fed with FP32"
    pixels, floats = efficientnet_lite0_pixels(), efficientnet_lite0_onnx()
    with _one_processor():
        rows = [
            *_added_rows(nothing, _measure(first_values(), _peers()), with_goals=True),
            *_share_rows(network, _measure(pixels, _peers()), with_goal=True),
            *_share_rows(f"{network} {fed}", _measure(floats, [SkerryPeer()]), with_goal=False),
        ]
    several, ours = "on several processors", [SkerryPeer()]
    rows += [
        *_added_rows(f"{nothing}, {several}", _measure(first_values(), ours), with_goals=False),
        *_share_rows(f"{network}, {several}", _measure(pixels, ours), with_goal=False),
        *_busy_rows(network, pixels, with_goal=True),
        *_busy_rows(f"{network} {fed}", floats, with_goal=False),
    ]
    busy = round(others.cores(), 2)
    return [*rows, figure("the machine meanwhile: kept busy by others", busy, "cores", HOW)]


@contextmanager
def _one_processor() -> Iterator[None]:
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})  # and of the servers, which are started below it
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def _measure(model: BenchModel, peers: Sequence[Peer]) -> dict[str, Spread]:
    rounds = in_fresh_processes(_ROUNDS, _round, model, peers)
    names = rounds[0]
    return {name: Spread.of(np.concatenate([found[name] for found in rounds])) for name in names}


def _round(model: BenchModel, peers: Sequence[Peer]) -> dict[str, Times]:
    with ExitStack() as stack:
        contenders = {_BARE: _bare(model)}
        for peer in peers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skerry-")))
            stack.enter_context(peer.start(model, folder))
            for protocol in peer.protocols:
                caller = peer.connect(protocol)
                stack.callback(caller.close)
                contenders[f"{peer.name}, {protocol}"] = caller.call
        _check(contenders, model.sample)
        print(f"Measuring {model.name}", flush=True)
        return interleave(
            {name: partial(call, model.sample) for name, call in contenders.items()},
            turns=_TURNS,
            calls_per_turn=_CALLS_PER_TURN,
        )


def _peers() -> list[Peer]:
    return [SkerryPeer(), MlserverPeer(), KservePeer(), LitservePeer()]


def _bare(model: BenchModel) -> Callable[[Array], Array]:
    session = open_session(model.path)

    def call(tensor: Array) -> Array:
        return session.run(None, {model.input.name: tensor})[0]

    return call


def _check(contenders: Contenders, sample: Array) -> None:
    expected = contenders[_BARE](sample)
    for name, call in contenders.items():
        if not np.array_equal(call(sample), expected):
            raise SystemExit(f"{name} gives another answer than {_BARE}: nothing was measured")


def _added_rows(model: str, spreads: Mapping[str, Spread], *, with_goals: bool) -> list[Row]:
    bare = spreads[_BARE].p50
    rows = []
    for name, spread in spreads.items():
        if name == _BARE:
            continue
        label, added = f"{model}: {name}: added p50", round(spread.p50 - bare, 1)
        if with_goals and name in _MAX_ADDED_US:
            rows.append(at_most(label, added, "us", _MAX_ADDED_US[name], HOW))
        else:
            rows.append(figure(label, added, "us", HOW))
    return rows + _spread_rows(model, spreads)


def _share_rows(model: str, spreads: Mapping[str, Spread], *, with_goal: bool) -> list[Row]:
    bare = spreads[_BARE]
    rows = []
    for name, spread in spreads.items():
        if name == _BARE:
            continue
        throughput = f"{model}: {name}: throughput", round(bare.mean / spread.mean, 3), "of bare"
        p99 = f"{model}: {name}: p99", round(spread.p99 / bare.p99, 3), "of bare"
        rows.append(figure(*throughput, HOW))
        judged = with_goal and name == _SOCKET
        rows.append(at_most(*p99, _MAX_P99, HOW) if judged else figure(*p99, HOW))
    return rows + _spread_rows(model, spreads)


def _busy_rows(network: str, model: BenchModel, *, with_goal: bool) -> list[Row]:
    """Compare throughput where the runtime always has a call to work on: two callers, one model.

    The runtime computes one call at a time with one thread, as the bare loop does, so the ratio is
    what the protocol costs when it can be hidden behind the computation.
    """
    ratios = np.concatenate(in_fresh_processes(_BUSY_ROUNDS, _busy_round, model))
    lower, median, upper = np.percentile(ratios, [25, 50, 75])
    how = (
        f"make bench NAME=local_call ({_BUSY_ROUNDS} x {_BUSY_TURNS} turns of {_BUSY_S:g} s each "
        "way, median; "
        f"{_BUSY_CALLERS} callers with one call each in flight, 1 instance with 1 thread)"
    )
    label = f"{network}: {_SOCKET}: throughput, {_BUSY_CALLERS} callers"
    throughput = label, round(float(median), 3), "of bare"
    return [
        at_least(*throughput, _MIN_THROUGHPUT, how) if with_goal else figure(*throughput, how),
        figure(f"{label}, lower quartile of the turns", round(float(lower), 3), "of bare", how),
        figure(f"{label}, upper quartile of the turns", round(float(upper), 3), "of bare", how),
    ]


def _busy_round(model: BenchModel) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder, ExitStack() as stack:
        peer = SkerryPeer()
        stack.enter_context(peer.start(model, Path(folder), instances=1))
        callers = [peer.connect(SkerryPeer.protocols[0]) for _ in range(_BUSY_CALLERS)]
        for caller in callers:
            stack.callback(caller.close)
        calls, bare = [caller.call for caller in callers], _bare(model)
        _calls_per_s(calls, model.sample)
        ratios = []
        for _ in range(_BUSY_TURNS):
            alone = _calls_per_s([bare], model.sample)
            ratios.append(_calls_per_s(calls, model.sample) / alone)
    return ratios


def _calls_per_s(calls: Sequence[Callable[[Array], Array]], sample: Array) -> float:
    until = time.perf_counter() + _BUSY_S

    def repeat(call: Callable[[Array], Array]) -> int:
        count = 0
        while time.perf_counter() < until:
            call(sample)
            count += 1
        return count

    began = time.perf_counter()
    with ThreadPoolExecutor(len(calls)) as threads:
        total = sum(threads.map(repeat, calls))
    return total / (time.perf_counter() - began)


def _spread_rows(model: str, spreads: Mapping[str, Spread]) -> list[Row]:
    return [
        figure(f"{model}: {name}: {quantile}", round(getattr(spread, quantile), 1), "us", HOW)
        for name, spread in spreads.items()
        for quantile in ("p50", "p90", "p99")
    ]

"""What an update costs the calls beside it: p99 of a running model, quiet and during updates.

One device under a real server. An application calls the small reference model at a steady rate;
meanwhile the control process downloads, verifies, loads, tries and commits releases of another
family, EfficientNet-Lite0, whose files are some megabytes. Quiet and busy rounds alternate.

The server stands for one on another machine. It has to serve, on the processor that control keeps
to; but it makes no deltas, which would compute for most of a round.
"""

import base64
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measuring.elsewhere import give_way
from benchmarks.measuring.other_load import OtherLoad
from benchmarks.models.bench_models import BenchModel, efficientnet_lite0_onnx
from benchmarks.peers.programs.onnx_session import open_session
from benchmarks.report import Row, at_most, figure
from skerry.demo import images
from skerry.demo.application import Application
from skerry.demo.layout import DEVICES, DemoDir, Ports, reference_model
from skerry.demo.world import World

_FAMILY = "efficientnet_lite0"
_ROUNDS = 16
_ROUND_S = 4.0
_PAUSE_S = 0.005
_MAX_RATIO = 1.3
_COMMIT_WITHIN_S = 60.0
HOW = (
    f"make bench NAME=update_beside_calls ({_ROUNDS} rounds of {_ROUND_S:g} s quiet and as many "
    "with an update of another family, alternating, calls over the Unix socket with binary "
    "tensors; the server on control's core at the lowest priority, without deltas, asked once a "
    "second throughout)"
)


def run() -> list[Row]:
    """Measure quiet and busy rounds in turns."""
    others = OtherLoad()
    model = reference_model()
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        world = World(
            directory=DemoDir(Path(folder) / "d"),
            ports=Ports.free(),
            model=model,
            images=images.load(model),
            families=("fashion_mnist", _FAMILY),
        )
        try:
            _prepare(world, _model_folder(Path(folder), efficientnet_lite0_onnx()))
            rows = _rounds(world)
        finally:
            world.stop()
    busy = round(others.cores(), 2)
    return [*rows, figure("the machine meanwhile: kept busy by others", busy, "cores", HOW)]


def _prepare(world: World, other: Path) -> None:
    world.provision()
    with (world.directory.server / "server.toml").open("a") as settings:
        settings.write("delta_cache_bytes = 0\n")
    world.start_server()
    give_way(world.server_pid())
    _until(world.api("viewer").ready, "the server was not ready in time")
    world.enroll(DEVICES[0])
    world.publish("1.0.0", variant="int8")
    for version in range(_ROUNDS):
        world.publish(f"1.0.{version}", variant=("int8", "fp32")[version % 2], model=other)
    world.assign("1.0.0", DEVICES[:1])
    _until(lambda: world.committed(DEVICES[0]) == "1.0.0")


def _rounds(world: World) -> list[Row]:
    application = world.application(DEVICES[0])
    quiet: list[float] = []
    busy: list[float] = []
    try:
        for number in range(_ROUNDS):
            version = f"1.0.{number}"
            committed = _committed(world, version)
            quiet += _calls(application, world, committed, at_least_s=_ROUND_S)
            world.assign(version, DEVICES[:1], family=_FAMILY)
            busy += _calls(application, world, committed, at_least_s=_ROUND_S)
    finally:
        application.close()
    p99_quiet, p99_busy = (float(np.percentile(taken, 99)) * 1000 for taken in (quiet, busy))
    p50_quiet, p50_busy = (float(np.percentile(taken, 50)) * 1000 for taken in (quiet, busy))
    return [
        at_most("p99 during updates", round(p99_busy / p99_quiet, 2), "of quiet", _MAX_RATIO, HOW),
        figure("p50 during updates", round(p50_busy / p50_quiet, 2), "of quiet", HOW),
        figure("quiet: p50", round(p50_quiet, 3), "ms", HOW),
        figure("quiet: p99", round(p99_quiet, 3), "ms", HOW),
        figure("during updates: p50", round(p50_busy, 3), "ms", HOW),
        figure("during updates: p99", round(p99_busy, 3), "ms", HOW),
        figure("calls", len(quiet) + len(busy), "calls", HOW),
    ]


def _committed(world: World, version: str) -> Callable[[], bool]:
    def committed() -> bool:
        return world.committed(DEVICES[0], family=_FAMILY) == version

    return committed


def _calls(
    application: Application, world: World, done: Callable[[], bool], *, at_least_s: float
) -> list[float]:
    """Call for a while, and at most until what is being waited for has happened; seconds each."""
    image = world.images.inputs[:1]
    taken: list[float] = []
    began = time.monotonic()
    looked = began
    while time.monotonic() - began < at_least_s:
        taken.append(application.classify(image, "unix", "binary").latency_s)
        time.sleep(_PAUSE_S)
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            if done():
                break
    return taken


def _until(look: Callable[[], bool], otherwise: str = "the device did not commit in time") -> None:
    deadline = time.monotonic() + _COMMIT_WITHIN_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(0.2)


def _model_folder(folder: Path, model: BenchModel) -> Path:
    """Make what `skerry model pack` takes: card, golden vectors, files."""
    target = folder / _FAMILY
    target.mkdir()
    card: dict[str, object] = {
        "family": _FAMILY,
        "inputs": [{"name": model.input.name, "datatype": "FP32", "shape": model.input.shape}],
        "outputs": [{"name": model.output.name, "datatype": "FP32", "shape": model.output.shape}],
    }
    variants, golden = {}, {}
    for precision in ("int8", "fp32"):
        built = efficientnet_lite0_onnx(precision)
        (target / f"{precision}.onnx").write_bytes(built.path.read_bytes())
        variants[precision] = {
            "file": f"{precision}.onnx",
            "format": "onnx",
            "precision": precision,
            # There are no labels for its photographs; the benchmark does not look at this.
            "accuracy": {"test": {"correct": 0, "total": 1}},
        }
        answer = open_session(built.path).run(None, {model.input.name: model.sample})[0]
        vector = {
            "inputs": [_tensor(model.input.name, model.sample)],
            "outputs": [_tensor(model.output.name, answer)],
        }
        golden[precision] = {"vectors": [vector], "tolerance": {"max_abs_error": 1.0}}
    (target / "card.json").write_text(json.dumps(card | {"variants": variants}))
    (target / "golden.json").write_text(json.dumps(golden))
    return target


def _tensor(name: str, values: np.ndarray) -> dict[str, object]:
    return {
        "name": name,
        "datatype": "FP32",
        "shape": list(values.shape),
        "data_base64": base64.b64encode(values.astype("<f4").tobytes()).decode(),
    }

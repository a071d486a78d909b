"""Memory that an unusually large call took goes back with the calls after it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge_agent.inference.backends.base import Model
from edge_agent.inference.backends.edge_tpu import EdgeTpu
from edge_agent.inference.backends.extent import Extent
from edge_agent.inference.backends.litert_backend import LitertBackend
from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.probe import Prober
from edge_agent.inference.process_memory import anonymous_bytes
from edge_agent.inference.tensors import Tensor
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.simulators.onnx_files import one_node_release
from tests.unit.edge_agent.inference.tflite_files import relu, tflite_release

_WIDTH = 100_000
_MANY = 400


def _rows(count: int) -> Tensor:
    data = bytes(4 * _WIDTH * count)
    return Tensor(name="x", datatype=Datatype.FP32, shape=[count, _WIDTH], data=data)


@pytest.mark.parametrize(
    ("calls", "falls"),
    [
        ([1, 1, 1], [False, False, False]),
        ([1, 8, 1, 1], [False, False, False, False]),
        ([1, 9, 1, 1, 1], [False, False, False, True, False]),
        ([9, 1, 9, 1, 1], [False, False, True, False, True]),
        ([1, 2, 4, 8, 16], [False] * 5),
        ([0, 0], [False, False]),
    ],
)
def test_a_fall_is_told_once(calls: Sequence[int], falls: Sequence[bool]) -> None:
    assert _told(Extent(), calls) == falls


@pytest.mark.parametrize(
    ("calls", "falls"),
    [
        ([9, 1, 1, 1, 1, 1], [False, False, False, False, True, False]),
        ([9, 1, 1, 9, 1, 1], [False] * 6),
        ([9, 1, 9, 1, 9, 1], [False] * 6),
    ],
)
def test_a_fall_may_have_to_last(calls: Sequence[int], falls: Sequence[bool]) -> None:
    assert _told(Extent(calls=3), calls) == falls


def _told(extent: Extent, calls: Sequence[int]) -> list[bool]:
    found = []
    for size in calls:
        found.append(extent.has_fallen())
        tensor = Tensor(name="x", datatype=Datatype.UINT8, shape=[size], data=bytes(size))
        extent.ran([tensor], [tensor])
    return found


def _onnx(state: StateDir) -> Model:
    given, returned = (
        TensorSpec(name=name, datatype=Datatype.FP32, shape=[-1, _WIDTH]) for name in "xy"
    )
    release = one_node_release(state, "relu", "Relu", [given], [returned])
    return OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)


def _litert(state: StateDir) -> Model:
    release = tflite_release(state, relu(width=_WIDTH), shape=[-1, _WIDTH])
    edge_tpu = EdgeTpu(library=None, prober=Prober(), beside=list)
    return LitertBackend(threads=1, edge_tpu=edge_tpu).load(state.blob(release.sha256), release)


@pytest.mark.parametrize("load", [_onnx, _litert])
def test_the_memory_of_a_large_call_goes_back(
    tmp_path: Path, load: Callable[[StateDir], Model], capfd: pytest.CaptureFixture[str]
) -> None:
    model = load(StateDir(tmp_path))
    model.run([_rows(1)])
    before = anonymous_bytes()
    model.run([_rows(_MANY)])
    for count in [1, 1, 3] * 6:
        (answer,) = model.run([_rows(count)])
        assert (answer.shape, len(answer.data)) == ([count, _WIDTH], 4 * _WIDTH * count)
    grown = anonymous_bytes() - before
    model.close()
    assert grown < 4 * _WIDTH * _MANY / 4, grown
    assert capfd.readouterr().err == ""

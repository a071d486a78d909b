"""ONNX Runtime behind the backend seam, on the committed reference models."""

import struct
import sys
from pathlib import Path

import msgspec
import pytest

from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.warm_up import warm_up
from edge_agent.state_dir import StateDir
from fleet_protocol import bytes_tensor
from fleet_protocol.manifest import Datatype, GoldenVector, TensorSpec
from tests.simulators.onnx_files import identity_release, one_node_release
from tests.unit.edge_agent.inference.reference_release import MODELS, reference_release


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_golden_vectors_are_answered(state: StateDir, precision: str) -> None:
    release = reference_release(state, precision=precision)
    model = OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)
    golden = msgspec.json.decode((MODELS / "golden.json").read_bytes())[precision]
    vectors = msgspec.convert(golden["vectors"], list[GoldenVector])
    assert vectors
    for vector in vectors:
        (image,), (logits,) = vector.inputs, vector.outputs
        (answer,) = model.run(
            [Tensor(name="image", datatype=image.datatype, shape=image.shape, data=image.data())]
        )
        assert (answer.name, answer.datatype, answer.shape) == (
            "logits",
            Datatype.FP32,
            logits.shape,
        )
        expected = struct.unpack("<10f", logits.data())
        assert struct.unpack("<10f", answer.data) == pytest.approx(
            expected, abs=golden["tolerance"]["max_abs_error"]
        )
    model.close()


def spec(name: str, shape: list[int], datatype: Datatype = Datatype.FP32) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"inputs": [spec("picture", [-1, 1, 28, 28])]},
            r"\['image'\], the release declares \['pic",
        ),
        ({"inputs": [spec("image", [-1, 1, 28, 27])]}, r"FP32\[-1,1,28,28\], the release declares"),
        ({"inputs": [spec("image", [-1, -1, 28, 28])]}, "the release declares"),
        ({"inputs": [spec("image", [-1, 1, 28])]}, "the release declares"),
        ({"inputs": [spec("image", [-1, 1, 28, 28], Datatype.UINT8)]}, r"declares UINT8\[-1"),
        ({"outputs": [spec("scores", [-1, 10])]}, r"outputs are \['logits'\]"),
        ({"outputs": [spec("logits", [-1, 10], Datatype.FP64)]}, r"declares FP64\[-1,10\]"),
        ({"accelerator": "cuda"}, "has no CUDAExecutionProvider"),
    ],
)
def test_a_model_must_be_what_the_release_says(
    state: StateDir, changes: dict[str, object], complaint: str
) -> None:
    release = msgspec.structs.replace(reference_release(state), **changes)
    with pytest.raises(LoadError, match=complaint):
        OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)


def test_a_release_may_fix_what_the_model_leaves_free(state: StateDir) -> None:
    release = msgspec.structs.replace(
        reference_release(state),
        inputs=[spec("image", [3, 1, 28, 28])],
        outputs=[spec("logits", [3, 10])],
    )
    model = OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)
    assert warm_up(model, release, lambda: 0.0).inline_bytes > 0


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(1000)])
def test_a_broken_file_is_refused(state: StateDir, tmp_path: Path, content: bytes) -> None:
    release = reference_release(state)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content)
    with pytest.raises(LoadError, match=r"ONNX Runtime cannot load fashion_mnist 1\.0\.0"):
        OnnxRuntimeBackend(threads=1).load(broken, release)


def test_a_failing_run_is_our_error(state: StateDir, capfd: pytest.CaptureFixture[str]) -> None:
    size = TensorSpec(name="size", datatype=Datatype.INT64, shape=[1])
    zeros = TensorSpec(name="zeros", datatype=Datatype.FP32, shape=[-1])
    release = one_node_release(state, "zeros", "ConstantOfShape", [size], [zeros])
    model = OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)
    wrong = Tensor(name="size", datatype=Datatype.INT64, shape=[1], data=struct.pack("<q", -5))
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        model.run([wrong])
    staged = model.staged([wrong])
    assert staged is not None
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        staged.compute()
    # Standard error is the log, whose lines are JSON.
    assert capfd.readouterr().err == ""


def test_strings_are_converted_where_the_model_runs(state: StateDir) -> None:
    release = identity_release(state, "echo", Datatype.BYTES, [1])
    model = OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)
    data = bytes_tensor.pack([b"text"])
    given = [Tensor(name="x", datatype=Datatype.BYTES, shape=[1], data=data)]
    assert model.staged(given) is None
    assert model.run(given)[0].data == data


def test_a_missing_library_is_named_with_its_extra(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = reference_release(state)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    backend = OnnxRuntimeBackend(threads=1)
    assert backend.version() is None
    with pytest.raises(LoadError, match=r"pip install 'skerry\[onnx\]'"):
        backend.load(state.blob(release.sha256), release)


def test_what_a_caller_makes_fail_writes_nothing_to_the_log_by_itself(
    state: StateDir, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [
        TensorSpec(name="x", datatype=Datatype.FP32, shape=[1]),
        TensorSpec(name="shape", datatype=Datatype.INT64, shape=[1]),
    ]
    returned = [TensorSpec(name="y", datatype=Datatype.FP32, shape=[-1])]
    release = one_node_release(state, "m", "Expand", given, returned)
    model = OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)
    sizes = struct.pack("<q", 2**62)
    with pytest.raises(BackendError):
        model.run(
            [
                Tensor(name="x", datatype=Datatype.FP32, shape=[1], data=bytes(4)),
                Tensor(name="shape", datatype=Datatype.INT64, shape=[1], data=sizes),
            ]
        )
    model.close()
    assert capfd.readouterr().err == ""

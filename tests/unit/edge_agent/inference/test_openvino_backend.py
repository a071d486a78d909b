"""OpenVINO on the CPU, held against ONNX Runtime."""

import struct
from pathlib import Path

import msgspec
import pytest

from edge_agent.hardware import Device, DeviceKind, Hardware
from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.backends.openvino_backend import OpenVinoBackend
from edge_agent.inference.errors import LoadError
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype
from tests.integration.runtime.reference_calls import batch
from tests.simulators.onnx_files import identity_release
from tests.unit.edge_agent.inference.reference_release import reference_release

HERE = Hardware(machine="x", cpu="x", cpu_count=1, cpu_features=[], devices=[])


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


def on_openvino(state: StateDir, **changes: object) -> ActiveRelease:
    release = reference_release(state)
    return msgspec.structs.replace(release, **{"accelerator": "openvino-cpu", **changes})


def logits(data: bytes | bytearray | memoryview) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def test_answers_are_those_of_fp32_and_not_of_bf16(state: StateDir) -> None:
    release = on_openvino(state)
    path = state.blob(release.sha256)
    model = OpenVinoBackend(threads=1).load(path, release)
    assert model.max_concurrent_runs == 1
    reference = OnnxRuntimeBackend(threads=1).load(path, reference_release(state))
    for items in (1, 3, 2):
        (answer,), (wanted,) = model.run([batch(items)]), reference.run([batch(items)])
        assert (answer.name, answer.shape) == ("logits", [items, 10])
        # BF16 keeps 8 bits of a number: its error here is a hundred times as large.
        assert logits(answer.data) == pytest.approx(logits(wanted.data), abs=1e-4)
    model.close()


@pytest.mark.parametrize(
    ("datatype", "data"),
    [(Datatype.FP16, struct.pack("<4e", 1.5, -2.0, 0.0, 65504.0)), (Datatype.BOOL, b"\1\0\0\1")],
)
def test_datatypes_come_back_as_they_went(state: StateDir, datatype: Datatype, data: bytes) -> None:
    state.create()
    release = msgspec.structs.replace(
        identity_release(state, "echo", datatype, [-1, 4]), accelerator="openvino-cpu"
    )
    model = OpenVinoBackend(threads=1).load(state.blob(release.sha256), release)
    (answer,) = model.run([Tensor(name="x", datatype=datatype, shape=[1, 4], data=data)])
    assert (answer.datatype, bytes(answer.data)) == (datatype, data)


def test_strings_are_refused_at_load(state: StateDir) -> None:
    state.create()
    release = msgspec.structs.replace(
        identity_release(state, "echo", Datatype.BYTES, [-1, 4]), accelerator="openvino-cpu"
    )
    with pytest.raises(LoadError, match="does not travel"):
        OpenVinoBackend(threads=1).load(state.blob(release.sha256), release)


def test_answers_are_not_changed_by_later_calls(state: StateDir) -> None:
    release = on_openvino(state)
    model = OpenVinoBackend(threads=1).load(state.blob(release.sha256), release)
    (first,) = model.run([batch(1)])
    before = bytes(first.data)
    model.run([batch(5)])
    assert bytes(first.data) == before


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"accelerator": "cpu"}, "OpenVINO serves openvino-cpu"),
        ({"accelerator": "openvino-gpu"}, "cannot load"),
        ({"outputs": []}, None),
        ({"inputs": []}, "the release declares"),
    ],
)
def test_a_model_must_be_what_the_release_says(
    state: StateDir, changes: dict[str, object], complaint: str | None
) -> None:
    release = on_openvino(state, **changes)
    path = state.blob(release.sha256)
    if complaint is None:
        OpenVinoBackend(threads=1).load(path, release).close()
        return
    with pytest.raises(LoadError, match=complaint):
        OpenVinoBackend(threads=1).load(path, release)


class _Unasked(OpenVinoBackend):
    """Leaves the precision to the device, as a library does that takes no notice of the hint."""

    def _configuration(self, device: str) -> dict[str, str | int]:
        return {**super()._configuration(device), "INFERENCE_PRECISION_HINT": "undefined"}


def test_a_device_that_may_compute_in_another_precision_is_refused(state: StateDir) -> None:
    release = on_openvino(state)
    with pytest.raises(LoadError, match=r"would compute fashion_mnist 1\.0\.0 in dynamic on CPU"):
        _Unasked(threads=1).load(state.blob(release.sha256), release)


def test_a_broken_file_is_refused(state: StateDir) -> None:
    release = on_openvino(state)
    state.blob(release.sha256).write_bytes(b"not a model")
    with pytest.raises(LoadError, match="OpenVINO cannot load fashion_mnist"):
        OpenVinoBackend(threads=1).load(state.blob(release.sha256), release)


def test_what_it_can_do_here() -> None:
    backend = OpenVinoBackend(threads=1)
    assert backend.version()
    assert backend.files()
    assert backend.why_not("openvino-cpu", HERE) is None
    assert backend.why_not("openvino-npu", HERE) == "no Intel NPU is here"
    gpu = Device(kind=DeviceKind.INTEL_GPU, name="gpu", where="/dev/dri/renderD128")
    with_gpu = msgspec.structs.replace(HERE, devices=[gpu])
    assert "driver is missing" in (backend.why_not("openvino-gpu", with_gpu) or "")

"""The contest between variants against the real runtime: FP32 on two backends, and INT8."""

from collections.abc import Iterator

import msgspec
import pytest

from edge_agent.control.contest import Contest, winner
from edge_agent.control.runtime_client import AdminSocket, RuntimeRefusedError
from edge_agent.control.variants import fitting, placements_of, release_of
from edge_agent.state_dir import StateDir
from fleet_protocol import manifest as manifests
from fleet_protocol.manifest import (
    Accuracy,
    Datatype,
    Format,
    Golden,
    GoldenVector,
    Manifest,
    TensorSpec,
    Tolerance,
    Variant,
)
from tests.integration.runtime.running_runtime import RunningRuntime, running
from tests.unit.edge_agent.inference.reference_release import (
    FAMILY,
    LABELS,
    MODELS,
    commit,
    reference_release,
)

MANIFEST = "m" * 8


@pytest.fixture
def device(state: StateDir) -> Iterator[RunningRuntime]:
    """A runtime that serves an older version."""
    commit(state, reference_release(state, version="0.9.0"))
    with running(state.root) as started:
        yield started.surveyed()


@pytest.fixture
def manifest(state: StateDir) -> Manifest:
    """A release with three variants, its files and its manifest among the blobs."""
    content = msgspec.json.decode((MODELS / "golden.json").read_bytes())
    made = Manifest(
        family=FAMILY,
        version="1.0.0",
        inputs=[TensorSpec(name="image", datatype=Datatype.FP32, shape=[-1, 1, 28, 28])],
        outputs=[TensorSpec(name="logits", datatype=Datatype.FP32, shape=[-1, 10], labels=LABELS)],
        variants=[
            variant(state, content, "fp32", "cpu"),
            variant(state, content, "int8", "cpu"),
            variant(state, content, "int8", "openvino-cpu"),
        ],
    )
    state.blob(MANIFEST).write_bytes(manifests.encode(made))
    return made


def variant(state: StateDir, content: dict[str, object], precision: str, place: str) -> Variant:
    file = reference_release(state, precision=precision)
    golden = msgspec.convert(content[precision], dict[str, object])
    return Variant(
        name=f"{precision}-{place}",
        file=f"{precision}-{place}.onnx",
        format=Format.ONNX,
        precision="int8" if precision == "int8" else "fp32",
        accelerators=[place],
        length=state.blob(file.sha256).stat().st_size,
        sha256=file.sha256,
        accuracy=Accuracy(metric="top1", value=0.9, sample_count=100),
        memory_bytes=1000,
        golden=Golden(
            vectors=msgspec.convert(golden["vectors"], list[GoldenVector]),
            tolerance=Tolerance(max_abs_error=1.0),
        ),
    )


def test_variants_are_tried_beside_each_other_and_leave_nothing(
    device: RunningRuntime, state: StateDir, manifest: Manifest
) -> None:
    runtime = AdminSocket(state.admin_socket)
    placements = placements_of(runtime.status())
    found = fitting(manifest, placements)
    assert [one.label for one in found.runnable] == [
        "fp32-cpu on cpu", "int8-cpu on cpu", "int8-openvino-cpu on openvino-cpu",
    ]  # fmt: skip
    contenders = [release_of(manifest, one, choice="") for one in found.runnable]
    contest = Contest(
        runtime=runtime,
        blob=state.blob,
        available_memory=lambda: None,
    )
    for at, contender in enumerate(contenders):
        contest.enter(contender, at, MANIFEST)
    seconds = contest.time(list(enumerate(contenders)), MANIFEST)
    assert seconds.keys() == {0, 1, 2}
    assert all(0 < took < 1 for took in seconds.values())
    assert winner(seconds) in seconds
    # The model's own time, not that of the way to it.
    assert min(seconds.values()) < 0.001
    with device.public() as public:
        assert public.call("GET", f"/v2/models/{FAMILY}/versions/0.0.0-trial.0").status == 404
    contest.clear(FAMILY)
    assert [loaded.version for loaded in runtime.status().releases] == ["0.9.0"]


def test_a_variant_for_an_absent_accelerator_is_refused_and_not_run_elsewhere(
    device: RunningRuntime, state: StateDir, manifest: Manifest
) -> None:
    runtime = AdminSocket(state.admin_socket)
    (place, *_) = fitting(manifest, placements_of(runtime.status())).runnable
    release = msgspec.structs.replace(
        release_of(manifest, place, choice=""), accelerator="cuda", backend=""
    )
    with pytest.raises(RuntimeRefusedError, match="CUDAExecutionProvider"):
        runtime.load(release)
    assert device.process.poll() is None


def test_a_race_that_cannot_be_is_refused(
    device: RunningRuntime, state: StateDir, manifest: Manifest
) -> None:
    runtime = AdminSocket(state.admin_socket)
    inputs = manifest.variants[0].golden.vectors[0].inputs
    assert runtime.race(FAMILY, ["0.9.0"], inputs).keys() == {"0.9.0"}
    with pytest.raises(RuntimeRefusedError, match=r"'9\.9\.9' is not loaded"):
        runtime.race(FAMILY, ["0.9.0", "9.9.9"], inputs)
    renamed = [msgspec.structs.replace(inputs[0], name="picture")]
    with pytest.raises(RuntimeRefusedError, match=r"takes the inputs \['image'\]"):
        runtime.race(FAMILY, ["0.9.0"], renamed)
    with device.public() as public:
        assert public.call("POST", f"/admin/families/{FAMILY}/race/0.9.0").status == 404


def test_the_choice_is_in_metadata_status_and_log(
    device: RunningRuntime, state: StateDir, manifest: Manifest
) -> None:
    runtime = AdminSocket(state.admin_socket)
    (place, *_) = fitting(manifest, placements_of(runtime.status())).runnable
    runtime.load(release_of(manifest, place, choice="it was the fastest"))
    runtime.activate(FAMILY, "1.0.0")
    with device.public() as public:
        metadata = public.call("GET", f"/v2/models/{FAMILY}").json
    assert metadata["parameters"] == {
        "variant": "fp32-cpu",
        "accelerator": "cpu",
        "choice": "it was the fastest",
    }
    served = {found.version: found for found in runtime.status().releases}
    assert served["1.0.0"].choice == "it was the fastest"
    assert device.events("release_activated")[-1]["choice"] == "it was the fastest"

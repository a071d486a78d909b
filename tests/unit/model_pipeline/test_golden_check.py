"""The comparison with golden answers, without any inference library."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from edge_agent.hardware import Hardware
from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype, Format, Manifest, Tolerance
from model_pipeline import golden_check
from model_pipeline.errors import PipelineError
from model_pipeline.golden_check import Deviation
from tests.unit.model_pipeline.conftest import golden_tensor, manifest_for

GOLDEN = [[1.0, 5.0, 2.0], [7.0, 0.0, 1.0]]


@dataclass
class FixedModel:
    """Answers one call after the other with given numbers."""

    answers: Sequence[Sequence[float]]
    called: int = 0
    closed: bool = False
    max_concurrent_runs: int | None = None

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        assert [tensor.name for tensor in inputs] == ["x"]
        values = self.answers[self.called]
        self.called += 1
        if not values:
            raise BackendError("out of order")
        return [tensor_of(values)]

    def close(self) -> None:
        self.closed = True


@dataclass
class FixedBackend:
    """Loads that model whatever the file."""

    model: FixedModel | None
    name: str = "fixed"
    formats: frozenset[Format] = frozenset({Format.ONNX})
    accelerators: tuple[str, ...] = ("cpu",)

    def files(self) -> list[Path]:
        return [Path(__file__)]

    def why_not(self, accelerator: str, hardware: Hardware) -> str | None:  # noqa: ARG002 (it always can)
        return None

    def version(self) -> str | None:
        return "1"

    def load(self, path: Path, release: ActiveRelease) -> FixedModel:
        if self.model is None:
            raise LoadError(f"{path} is no model for {release.family}")
        return self.model


def tensor_of(values: Sequence[float]) -> Tensor:
    data = struct.pack(f"<{len(values)}f", *values)
    return Tensor(name="y", datatype=Datatype.FP32, shape=[1, len(values)], data=data)


def release(tolerance: Tolerance, *, labels: bool = True) -> Manifest:
    manifest = manifest_for(b"model")
    (variant,) = manifest.variants
    (spec,) = manifest.outputs
    vectors = [
        msgspec.structs.replace(
            variant.golden.vectors[0], outputs=[golden_tensor("y", [1, 3], values)]
        )
        for values in GOLDEN
    ]
    golden = msgspec.structs.replace(variant.golden, vectors=vectors, tolerance=tolerance)
    return msgspec.structs.replace(
        manifest,
        outputs=[
            msgspec.structs.replace(
                spec, name="y", shape=[-1, 3], labels=["a", "b", "c"] if labels else []
            )
        ],
        variants=[msgspec.structs.replace(variant, golden=golden)],
    )


def checked(manifest: Manifest, answers: Sequence[Sequence[float]]) -> Deviation:
    model = FixedModel(answers)
    try:
        return golden_check.check(
            FixedBackend(model), Path("model.onnx"), manifest, manifest.variants[0]
        )
    finally:
        assert model.closed


STRICT = Tolerance(max_abs_error=0.5, top1_agreement=1.0)


def test_the_golden_answers_themselves() -> None:
    assert checked(release(STRICT), GOLDEN) == Deviation(0.0, 1.0)


def test_the_largest_error_counts() -> None:
    found = checked(release(STRICT), [[1.0, 5.25, 2.0], [7.0, -0.5, 1.0]])
    assert found == Deviation(0.5, 1.0)


@pytest.mark.parametrize(
    "answers",
    [
        [[1.0, 5.0, 2.0], [7.0, 0.0, 1.75]],
        [[1.0, 5.0, 2.0], [7.0, 0.0, math.nan]],
        [[1.0, 5.0, 2.0], [7.0, 0.0, math.inf]],
        [[1.0, 5.0, 2.0], [7.0, 0.0]],
        [[1.0, 5.0, 2.0], [7.0, 0.0, 1.0, 0.0]],
    ],
)
def test_outside_the_tolerance(answers: list[list[float]]) -> None:
    with pytest.raises(PipelineError, match="largest error"):
        checked(release(STRICT), answers)


def test_a_tie_at_the_top_is_agreement() -> None:
    assert checked(release(Tolerance(max_abs_error=9.0)), [[5.0, 5.0, 5.0], GOLDEN[1]]) == (
        Deviation(4.0, 1.0)
    )


def test_another_winner() -> None:
    loose = Tolerance(max_abs_error=100.0, top1_agreement=1.0)
    swapped = [GOLDEN[0], [0.0, 7.0, 1.0]]
    with pytest.raises(PipelineError, match="same winner in 50%"):
        checked(release(loose), swapped)
    half = Tolerance(max_abs_error=100.0, top1_agreement=0.5)
    assert checked(release(half), swapped).top1_agreement == 0.5
    assert checked(release(loose, labels=False), swapped).top1_agreement == 1.0


def test_a_model_that_fails() -> None:
    with pytest.raises(PipelineError, match="out of order"):
        checked(release(STRICT), [GOLDEN[0], []])


def test_a_file_that_does_not_load() -> None:
    manifest = release(STRICT)
    with pytest.raises(PipelineError, match="does not load"):
        golden_check.check(FixedBackend(None), Path("x.onnx"), manifest, manifest.variants[0])

"""Runs golden vectors through the agent's own backend before a release leaves the house.

A device refuses a release whose golden answers it cannot reproduce. The publisher should be the
first to hear of that, so this asks the same backend with the same rule: every output element within
``max_abs_error``, and for outputs with labels the golden winner along the last dimension (a tie at
the top counts for it) in a share of ``top1_agreement`` of the items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import AgentError
from edge_agent.inference.backends.arrays import to_array
from edge_agent.inference.backends.base import Backend
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import GoldenTensor, Manifest, TensorSpec, Variant
from model_pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a model's answers lie from the golden ones.

    Attributes:
        max_abs_error: largest difference of any output element; infinite where a shape differs
            or where only one of the two is a number.
        top1_agreement: smallest share, over the outputs with labels, of items with the golden
            winner.
    """

    max_abs_error: float
    top1_agreement: float


def check(backend: Backend, path: Path, manifest: Manifest, variant: Variant) -> Deviation:
    """Compare a file's answers with a variant's golden ones.

    Raises:
        PipelineError: the file does not load, fails on a vector, or lies outside the tolerance.
    """
    try:
        model = backend.load(path, release_of(manifest, variant))
    except AgentError as error:
        raise PipelineError(f"{path} does not load as a device would load it: {error}") from error
    try:
        answers = [
            model.run([_tensor(tensor) for tensor in vector.inputs])
            for vector in variant.golden.vectors
        ]
    except AgentError as error:
        raise PipelineError(f"{path} fails on a golden vector: {error}") from error
    finally:
        model.close()
    deviation = compare(answers, variant, manifest.outputs)
    _accept(deviation, path, variant)
    return deviation


def compare(
    answers: Sequence[Sequence[Tensor]], variant: Variant, outputs: Sequence[TensorSpec]
) -> Deviation:
    """Measure how far answers lie from a variant's golden ones.

    Args:
        answers: for each golden vector the outputs in the manifest's order.
        variant: holds the golden answers.
        outputs: the manifest's outputs.
    """
    error = 0.0
    agreeing = [_Agreement() for _ in outputs]
    for answer, vector in zip(answers, variant.golden.vectors, strict=True):
        for at, (tensor, golden) in enumerate(zip(answer, vector.outputs, strict=True)):
            got, wanted = to_array(tensor), to_array(_tensor(golden))
            if got.shape != wanted.shape:
                return Deviation(max_abs_error=float("inf"), top1_agreement=0.0)
            error = max(error, _largest_difference(got, wanted))
            agreeing[at].count(got, wanted)
    shares = [
        agreement.share for agreement, spec in zip(agreeing, outputs, strict=True) if spec.labels
    ]
    return Deviation(max_abs_error=error, top1_agreement=min(shares, default=1.0))


@dataclass(slots=True)
class _Agreement:
    """How often the golden winner won, for one output."""

    same: int = 0
    items: int = 0

    def count(self, got: NDArray[np.generic], wanted: NDArray[np.generic]) -> None:
        if not wanted.size:
            return
        width = wanted.shape[-1] if wanted.ndim else 1
        rows, golden = got.reshape(-1, width), wanted.reshape(-1, width)
        at_winner = rows[np.arange(len(rows)), golden.argmax(axis=1)]
        self.items += len(rows)
        self.same += int(np.count_nonzero(at_winner == rows.max(axis=1)))

    @property
    def share(self) -> float:
        return self.same / self.items if self.items else 1.0


def _accept(deviation: Deviation, path: Path, variant: Variant) -> None:
    tolerance = variant.golden.tolerance
    if deviation.max_abs_error <= tolerance.max_abs_error and (
        deviation.top1_agreement >= tolerance.top1_agreement
    ):
        return
    raise PipelineError(
        f"{path} does not give the golden answers of the variant {variant.name!r}: largest error "
        f"{deviation.max_abs_error:.3g} (allowed {tolerance.max_abs_error:.3g}), same winner in "
        f"{deviation.top1_agreement:.0%} of the items (needed {tolerance.top1_agreement:.0%}); "
        "every device would refuse this release, so it is not packed: the file is not the model "
        "that the card describes"
    )


def _largest_difference(got: NDArray[np.generic], wanted: NDArray[np.generic]) -> float:
    numbers, golden = got.astype(np.float64), wanted.astype(np.float64)
    same = (numbers == golden) | (np.isnan(numbers) & np.isnan(golden))
    difference = np.abs(numbers[~same] - golden[~same])
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0.0))


def _tensor(golden: GoldenTensor) -> Tensor:
    return Tensor(
        name=golden.name, datatype=golden.datatype, shape=golden.shape, data=golden.data()
    )


def release_of(manifest: Manifest, variant: Variant) -> ActiveRelease:
    """Return what a backend is told about a variant."""
    return ActiveRelease(
        family=manifest.family,
        version=manifest.version,
        variant=variant.name,
        format=variant.format,
        accelerator=variant.accelerators[0],
        sha256=variant.sha256,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
    )

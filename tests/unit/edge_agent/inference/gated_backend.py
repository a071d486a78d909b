"""A backend whose models do what a test tells them: wait, fail, and say with whom they ran."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from edge_agent.hardware import Hardware
from edge_agent.inference.errors import BackendError
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype, Format, TensorSpec

FAILS = -1.0
SUMS = -2.0


class GatedModel:
    """Doubles its input, behind a gate that is open after `GatedBackend.let_pass`."""

    def __init__(self, backend: "GatedBackend") -> None:
        self.max_concurrent_runs = backend.max_concurrent_runs
        self._backend = backend
        self.closed = False

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        assert not self.closed
        values = np.frombuffer(inputs[0].data, "<f4")
        self._backend.began(values.tolist())
        if FAILS in values:
            raise BackendError("the model broke")
        if self._backend.mixes:
            values = np.full_like(values, values.sum())
        if SUMS in values:
            values = values.sum(keepdims=True)
        return [
            Tensor(
                name="y",
                datatype=Datatype.FP32,
                shape=list(values.shape),
                data=(values * 2).tobytes(),
            )
        ]

    def close(self) -> None:
        self.closed = True


class StagedGatedModel(GatedModel):
    """The same in steps, which say where they were taken."""

    def staged(self, inputs: Sequence[Tensor]) -> "StagedGatedRun | None":
        return StagedGatedRun(self, inputs, self._backend.steps)


class StagedGatedRun:
    """A run that computes behind the gate."""

    def __init__(
        self, model: GatedModel, inputs: Sequence[Tensor], steps: list[tuple[str, str]]
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._steps = steps
        self._outputs: list[Tensor] = []
        self._took("prepared")

    def compute(self) -> None:
        self._outputs = self._model.run(self._inputs)
        self._took("computed")

    def outputs(self) -> list[Tensor]:
        self._took("finished")
        return self._outputs

    def _took(self, step: str) -> None:
        self._steps.append((step, threading.current_thread().name))


class GatedBackend:
    """Loads any file; its models wait at one gate once it is shut."""

    name = "gated"
    formats: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    accelerators: ClassVar[tuple[str, ...]] = ("cpu",)

    def __init__(self, max_concurrent_runs: int | None = None, *, staged: bool = False) -> None:
        self._model = StagedGatedModel if staged else GatedModel
        self.steps: list[tuple[str, str]] = []
        self.max_concurrent_runs = max_concurrent_runs
        self.mixes = False
        """Whether each item's answer depends on the others."""
        self.models: list[GatedModel] = []
        self.runs: list[list[float]] = []
        self._change = threading.Condition()
        self._open = True

    def files(self) -> list[Path]:
        return []

    def version(self) -> str:
        return "1"

    def why_not(self, accelerator: str, hardware: Hardware) -> str | None:  # noqa: ARG002 (all is usable)
        return None

    def load(self, path: Path, release: ActiveRelease) -> GatedModel:  # noqa: ARG002 (any file)
        self.models.append(self._model(self))
        return self.models[-1]

    def shut(self) -> None:
        """Let runs wait from now on, and forget those that were."""
        with self._change:
            self._open = False
            self.runs.clear()

    def let_pass(self) -> None:
        """Open the gate."""
        with self._change:
            self._open = True
            self._change.notify_all()

    def began(self, values: list[float]) -> None:
        """Note a run and wait at the gate."""
        with self._change:
            self.runs.append(values)
            self._change.notify_all()
            assert self._change.wait_for(lambda: self._open, 30)

    def wait_for_runs(self, count: int) -> None:
        """Wait until so many runs have begun since the gate was shut."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.runs) >= count, 30)


def gated_release(version: str = "1.0.0", *, family: str = "m") -> ActiveRelease:
    """Return a release whose file is empty."""
    return ActiveRelease(
        family=family,
        version=version,
        variant="v",
        format=Format.ONNX,
        accelerator="cpu",
        sha256="0" * 64,
        inputs=[TensorSpec(name="x", datatype=Datatype.FP32, shape=[-1])],
        outputs=[TensorSpec(name="y", datatype=Datatype.FP32, shape=[-1])],
    )

"""What the runtime asks of an inference library: load a file, run it, let go of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from edge_agent.hardware import Hardware
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Format

CPU = "cpu"
"""The accelerator of a variant that needs none."""


class Model(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

    @property
    def max_concurrent_runs(self) -> int | None:
        """Return how many calls of ``run`` make progress at once, None for any number.

        More than that is allowed and waits inside ``run``: for more at once, load the file again.
        """
        ...

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return all outputs that the release declares, in its order.

        Args:
            inputs: those that the release declares, in its order, of fitting datatype and shape.

        Raises:
            BackendError: the library failed.
        """
        ...

    def close(self) -> None:
        """Free the model; no call is under way and none follows."""
        ...


class StagedRun(Protocol):
    """A run in steps, of which only ``compute`` keeps the model from its next call."""

    def compute(self) -> None:
        """Run the model, once; in any thread.

        Raises:
            BackendError: the library failed.
        """
        ...

    def outputs(self) -> list[Tensor]:
        """Return what `Model.run` returns, after ``compute``; cheap, and in any thread."""
        ...


@runtime_checkable
class StagedModel(Model, Protocol):
    """A model that can do before and after its turn what does not need the model itself.

    What a thread does between two runs, the next call waits for, and it takes long: a large
    model's run has emptied the processor's caches.
    """

    def staged(self, inputs: Sequence[Tensor]) -> StagedRun | None:
        """Prepare a run; cheap enough for the event loop.

        Args:
            inputs: as for `run`.

        Returns:
            The run, or None where the steps beside ``compute`` would take long: `run` does those.
        """
        ...


class Backend(Protocol):
    """One inference library, imported when it is first needed.

    Only ``load`` and what answers a survey (`edge_agent.inference.survey`) may import it.
    """

    @property
    def name(self) -> str:
        """Name in status, metadata and telemetry."""
        ...

    @property
    def formats(self) -> frozenset[Format]:
        """Formats of the files that it loads."""
        ...

    @property
    def accelerators(self) -> tuple[str, ...]:
        """Where it can run models, usable on this machine or not; the first is its usual one."""
        ...

    def files(self) -> list[Path]:
        """Return the files whose change may change what the backend can do here.

        Nothing is imported. An empty list says that the library is not installed.
        """
        ...

    def version(self) -> str | None:
        """Return the library's version, None where it is not usable; imports it."""
        ...

    def why_not(self, accelerator: str, hardware: Hardware) -> str | None:
        """Return why an accelerator cannot be used here, None where it can; imports the library.

        It is asked in a process of its own, because drivers may crash.
        """
        ...

    def load(self, path: Path, release: ActiveRelease) -> Model:
        """Load the file of a release.

        Raises:
            LoadError: the library is missing, the file is no model for it, the accelerator cannot
                be used, or inputs and outputs are not those that the release declares.
        """
        ...

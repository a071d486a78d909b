"""What the runtime asks of an inference library: load a file, run it, let go of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease


class Model(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

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


class Backend(Protocol):
    """One inference library, imported when it is first needed."""

    @property
    def name(self) -> str:
        """Name in status, metadata and telemetry."""
        ...

    def version(self) -> str | None:
        """Return the library's version, None where it is not usable."""
        ...

    def load(self, path: Path, release: ActiveRelease) -> Model:
        """Load the file of a release.

        Raises:
            LoadError: the library is missing, the file is no model for it, the accelerator is not
                one it serves, or inputs and outputs are not those that the release declares.
        """
        ...

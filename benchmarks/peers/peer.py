"""What the measurements ask of a server: start with a model, answer calls, end."""

from pathlib import Path
from typing import Protocol

from benchmarks.measuring.server_process import ServerProcess
from benchmarks.models.bench_models import Array, BenchModel


class Caller(Protocol):
    """A kept-alive connection to a running server."""

    def call(self, tensor: Array) -> Array:
        """Return the model's output for an input of its shape."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Peer(Protocol):
    """One server; every one gets one worker and one thread inside ONNX Runtime."""

    @property
    def name(self) -> str:
        """Name in the table."""
        ...

    @property
    def protocols(self) -> tuple[str, ...]:
        """Ways to call it, the recommended one first."""
        ...

    def start(self, model: BenchModel, folder: Path) -> ServerProcess:
        """Install the server if needed, start it and wait until it answers.

        Args:
            model: the one model that it serves.
            folder: an empty one for its logs and state.

        Raises:
            SystemExit: it did not come up.
        """
        ...

    def connect(self, protocol: str) -> Caller:
        """Return a connection to the server that was started."""
        ...

"""Which backend loads which format."""

from collections.abc import Iterable

from edge_agent.inference.backends.base import Backend
from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.errors import LoadError
from fleet_protocol.manifest import Format


class Catalog:
    """The backends of this process."""

    def __init__(self, backends: Iterable[tuple[Format, Backend]]) -> None:
        """Take the backend of each format that can be served."""
        self._by_format = dict(backends)

    def backend_for(self, file_format: Format) -> Backend:
        """Return the backend that loads a format.

        Raises:
            LoadError: there is none.
        """
        backend = self._by_format.get(file_format)
        if backend is None:
            raise LoadError(
                f"this device has no backend for {file_format} files; it serves "
                f"{', '.join(sorted(self._by_format))}"
            )
        return backend

    def versions(self) -> dict[str, str]:
        """Return name and library version of each usable backend; imports them."""
        return {
            backend.name: version
            for backend in self._by_format.values()
            if (version := backend.version()) is not None
        }


def installed(*, threads: int) -> Catalog:
    """Return every backend that this project has, usable here or not.

    Args:
        threads: threads of one call inside a backend.
    """
    return Catalog([(Format.ONNX, OnnxRuntimeBackend(threads=threads))])

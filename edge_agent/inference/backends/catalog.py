"""Which backend loads which format on which accelerator, those of other distributions included."""

import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from edge_agent.inference.backends.base import CPU, Backend
from edge_agent.inference.backends.edge_tpu import EdgeTpu
from edge_agent.inference.backends.engine_cache import EngineCache
from edge_agent.inference.backends.installed_library import files_of
from edge_agent.inference.backends.litert_backend import LitertBackend
from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.backends.openvino_backend import OpenVinoBackend
from edge_agent.inference.errors import LoadError
from edge_agent.inference.probe import Prober
from fleet_protocol.manifest import Format

logger = logging.getLogger(__name__)

ENTRY_POINTS = "skerry.backends"
"""Group of the entry points that name a callable ``(*, threads: int) -> Backend``."""


class Catalog:
    """The backends of this process, in order of preference."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        """Take the backends, installed or not; of two with one name the first counts."""
        self._by_name: dict[str, Backend] = {}
        for backend in backends:
            self._by_name.setdefault(backend.name, backend)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All of them."""
        return tuple(self._by_name.values())

    def named(self, name: str) -> Backend:
        """Return a backend.

        Raises:
            LoadError: there is none of that name.
        """
        backend = self._by_name.get(name)
        if backend is None:
            raise LoadError(
                f"there is no backend {name!r} here; known are {', '.join(sorted(self._by_name))}"
            )
        return backend

    def backend_for(
        self, file_format: Format, accelerator: str = CPU, *, name: str = ""
    ) -> Backend:
        """Return the backend that loads a format on an accelerator.

        Args:
            file_format: of the file.
            accelerator: where it shall run.
            name: of the backend, where several could.

        Raises:
            LoadError: there is none.
        """
        if name:
            return self.named(name)
        loading = [backend for backend in self.backends if file_format in backend.formats]
        for backend in loading:
            if accelerator in backend.accelerators:
                return backend
        if loading:
            raise LoadError(
                f"no backend runs {file_format} files on the accelerator {accelerator!r}; known "
                f"are {', '.join(sorted({at for one in loading for at in one.accelerators}))}"
            )
        formats = sorted({known for backend in self.backends for known in backend.formats})
        raise LoadError(
            f"this device has no backend for {file_format} files; it serves {', '.join(formats)}"
        )


def installed(
    *,
    threads: int,
    edgetpu_library: Path | None = None,
    probes: Path | None = None,
    engines: EngineCache | None = None,
) -> Catalog:
    """Return every backend that is known, usable here or not.

    Args:
        threads: threads of one call inside a backend.
        edgetpu_library: the Edge TPU's delegate; None looks for it.
        probes: file that remembers what has been tried; None forgets.
        engines: keeps TensorRT's engines; None does not.
    """
    return Catalog(
        [
            OnnxRuntimeBackend(threads=threads, engines=engines),
            LitertBackend(
                threads=threads,
                edge_tpu=EdgeTpu(
                    library=edgetpu_library,
                    prober=Prober(probes),
                    beside=lambda: files_of("ai_edge_litert"),
                ),
            ),
            OpenVinoBackend(threads=threads),
            *_of_others(threads),
        ]
    )


def _of_others(threads: int) -> list[Backend]:
    found: list[Backend] = []
    if not _others_there():
        return found
    import importlib.metadata  # noqa: PLC0415 (2.4 MB and 30 ms, which most devices can keep)

    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found.append(entry.load()(threads=threads))
        except Exception as error:  # noqa: BLE001 (code of others; it must not stop ours)
            logger.error(  # noqa: TRY400 (the reason says it)
                "backend_not_loaded",
                extra={"entry_point": entry.value, "reason": f"{type(error).__name__}: {error}"},
            )
    return found


def _others_there() -> bool:
    """Say whether an installed distribution has an entry point of ours."""
    for folder in sys.path:
        for path in Path(folder).glob("*.dist-info/entry_points.txt"):
            try:
                if f"[{ENTRY_POINTS}]" in path.read_text(errors="replace"):
                    return True
            except OSError:
                continue
    return False

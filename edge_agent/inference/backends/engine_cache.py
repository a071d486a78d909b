"""TensorRT's engines, kept from one load of a model to the next.

Building an engine takes minutes, and it fits one GPU, driver and library: derived data, which is
never trusted further than that and may be deleted at any time. A folder is named after the model's
file and a hash of everything that the engine depends on. ONNX Runtime writes into it; whatever was
interrupted there is thrown away, and whatever belongs to a model that has gone is too.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from edge_agent import hardware
from edge_agent.hardware import DeviceKind, Hardware
from edge_agent.inference.backends.installed_library import files_of
from edge_agent.inference.errors import LoadError
from edge_agent.inference.probe import stamps

logger = logging.getLogger(__name__)

_MAX_BYTES = 4 * 1024**3
_UNFINISHED = "unfinished"
_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))
_LIBRARIES = ("tensorrt_libs", "tensorrt")
_PRIVATE = 0o700


class EngineCache:
    """The folders of one state directory. Blocks; used by one load at a time."""

    def __init__(
        self,
        root: Path,
        *,
        blobs: Path,
        max_bytes: int = _MAX_BYTES,
        look: Callable[[], Hardware] = hardware.look,
        drivers: Sequence[Path] = _DRIVERS,
    ) -> None:
        """Touch nothing yet.

        Args:
            root: where the folders are; nothing else is there.
            blobs: the models' files, named by their SHA-256.
            max_bytes: of all folders together; beyond it the oldest go.
            look: returns the hardware.
            drivers: files that tell the version of NVIDIA's driver.
        """
        self._root = root
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._look = look
        self._drivers = drivers

    def folder(self, sha256: str, library_version: str) -> Path:
        """Return the folder for the engines of a model, which need not exist.

        Args:
            sha256: of the model's file.
            library_version: ONNX Runtime's.
        """
        depends_on = [
            library_version,
            *stamps([path for name in _LIBRARIES for path in files_of(name)]),
            *(_text(path) for path in self._drivers),
            *(gpu.name for gpu in self._look().of_kind(DeviceKind.NVIDIA_GPU)),
        ]
        key = hashlib.sha256(msgspec.json.encode(depends_on)).hexdigest()[:32]
        return self._root / sha256 / key

    @contextlib.contextmanager
    def opened(self, folder: Path) -> Iterator[Path]:
        """Let a model be loaded and run for the first time with a folder, and keep what it wrote.

        A block that fails, or a process that dies in it, leaves nothing that is used again.

        Raises:
            LoadError: the folder cannot be made.
        """
        # Here, because no other accelerator needs it.
        from edge_agent import store  # noqa: PLC0415

        unfinished = folder / _UNFINISHED
        self.collect(folder)
        try:
            if unfinished.exists():
                _delete(folder)
            folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            store.write_file(unfinished, b"")
        except (OSError, store.StoreError) as error:
            raise LoadError(f"cannot keep TensorRT's engines in {folder}: {error}") from error
        try:
            yield folder
            store.sync_tree(folder)
            store.remove_file(unfinished)
        except store.StoreError as error:
            # The model is loaded; only the next load has to build its engine again.
            logger.warning("engine_not_kept", extra={"reason": str(error)})
            _delete(folder)
        except BaseException:
            _delete(folder)
            raise

    def collect(self, keep: Path | None = None) -> None:
        """Delete what belongs to models that have gone, or was built under other conditions.

        Args:
            keep: a folder that is about to be used; others for its model are out of date.
        """
        kept = []
        for model in _folders(self._root):
            if not (self._blobs / model.name).exists():
                _delete(model)
                continue
            for folder in _folders(model):
                if keep is not None and model == keep.parent and folder != keep:
                    _delete(folder)
                else:
                    kept.append(folder)
        # An engine that was opened last is the newest: the marker's removal touches its folder.
        kept.sort(key=lambda folder: (folder == keep, _changed_at(folder)), reverse=True)
        total = 0
        for folder in kept:
            total += _size(folder)
            if total > self._max_bytes and folder != keep:
                _delete(folder)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:1000]
    except OSError:
        return ""


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []


def _changed_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _delete(folder: Path) -> None:
    import shutil  # noqa: PLC0415 (it brings compression libraries, which the runtime can do without)

    logger.info("engines_deleted", extra={"folder": str(folder)})
    shutil.rmtree(folder, ignore_errors=True)

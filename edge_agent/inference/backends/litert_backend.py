"""LiteRT on the CPU (XNNPACK) and on a Coral Edge TPU: the only module that imports it.

One interpreter serves one thread: whoever wants more calls at once loads the file again. Quantised
tensors travel raw, as INT8 or UINT8, so an answer is bit-equal to the bare interpreter's.
"""

import ctypes
import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypedDict

from edge_agent.hardware import DeviceKind, Hardware
from edge_agent.inference.backends import tensor_names
from edge_agent.inference.backends.base import CPU
from edge_agent.inference.backends.edge_tpu import EDGE_TPU, EdgeTpu
from edge_agent.inference.backends.extent import Extent
from edge_agent.inference.backends.installed_library import files_of, imported
from edge_agent.inference.backends.native_output import logged_native_output
from edge_agent.inference.backends.tensor_names import ModelTensor
from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Format, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_PACKAGES = ("ai_edge_litert", "tflite_runtime")
"""The second has wheels for 32-bit Arm, where nothing newer has; elsewhere it is not worth it."""

_SMALL_CALLS = 16
"""After so many calls that are far below the largest, the interpreter is made anew without its
memory. That reads the file again."""

_EDGE_TPU_OP = "edgetpu-custom-op"


class _Details(TypedDict):
    """What an interpreter says about a tensor."""

    name: str
    index: int
    shape: "NDArray[np.int32]"
    shape_signature: "NDArray[np.int32]"
    dtype: "type[np.generic]"


class _Interpreter(Protocol):
    """What we use of an interpreter; the library ships no types of its own."""

    def allocate_tensors(self) -> None: ...
    def get_input_details(self) -> list[_Details]: ...
    def get_output_details(self) -> list[_Details]: ...
    def resize_tensor_input(
        self, input_index: int, tensor_size: Sequence[int], *, strict: bool = False
    ) -> None: ...
    def set_tensor(self, tensor_index: int, value: "NDArray[np.generic]") -> None: ...
    def get_tensor(self, tensor_index: int) -> "NDArray[np.generic]": ...
    def invoke(self) -> None: ...


class LitertBackend:
    """Loads TFLite files."""

    name = "litert"
    formats = frozenset({Format.TFLITE})
    accelerators = (CPU, EDGE_TPU)

    def __init__(self, *, threads: int, edge_tpu: EdgeTpu) -> None:
        """Keep the settings; the library is imported later.

        Args:
            threads: threads of one call on the CPU.
            edge_tpu: finds and checks the delegate library.
        """
        self._threads = threads
        self._edge_tpu = edge_tpu

    def files(self) -> list[Path]:
        """Return the library's file and the delegate's, as far as they are here."""
        library = next((found for name in _PACKAGES if (found := files_of(name))), [])
        return [*library, *self._edge_tpu.files()] if library else []

    def version(self) -> str | None:
        """Return the library's version, None where it is not usable."""
        try:
            library = _library()
        except LoadError:
            return None
        package = importlib.import_module(library.__name__.partition(".")[0])
        return str(getattr(package, "__version__", "unknown"))

    def why_not(self, accelerator: str, hardware: Hardware) -> str | None:
        """Return why an accelerator cannot be used here, None where it can."""
        if accelerator == CPU:
            return None
        return self._edge_tpu.why_not(hardware.of_kind(DeviceKind.EDGE_TPU))

    def load(self, path: Path, release: ActiveRelease) -> "LitertModel":
        """Load a TFLite file; see `Backend.load`.

        Raises:
            LoadError: see there.
        """
        if release.accelerator not in self.accelerators:
            raise LoadError(
                f"{release.family} {release.version} wants the accelerator "
                f"{release.accelerator!r}; LiteRT serves {' and '.join(self.accelerators)}"
            )
        library = _library()
        try:
            with logged_native_output("litert"):
                delegates = []
                if release.accelerator == EDGE_TPU:
                    self._edge_tpu.check_with(path)
                    delegates = [self._edge_tpu.delegate(library.load_delegate)]
                make = partial(
                    library.Interpreter,
                    model_path=str(path),
                    num_threads=self._threads,
                    experimental_delegates=delegates,
                )
                return LitertModel(make, release)
        except (ValueError, RuntimeError) as error:
            raise _load_error(error, release) from error


class LitertModel:
    """One interpreter; a lock makes several callers wait for each other."""

    max_concurrent_runs = 1

    def __init__(self, make: Callable[[], _Interpreter], release: ActiveRelease) -> None:
        """Make an interpreter, match its tensors and allocate them.

        Args:
            make: makes an interpreter of the model; called again to give memory back.
            release: what the model must be.

        Raises:
            LoadError: inputs or outputs are not those that the release declares.
            ValueError, RuntimeError: LiteRT cannot run the model.
        """
        # numpy comes with LiteRT and is as late and as optional.
        from edge_agent.inference.backends import arrays  # noqa: PLC0415

        interpreter = make()
        datatypes = {dtype: datatype for datatype, dtype in arrays.DTYPES.items()}
        signature = _signature(interpreter)

        def tensors(details: list[_Details], names: dict[int, str]) -> list[ModelTensor[int]]:
            return [
                ModelTensor(
                    key=found["index"],
                    names=tensor_names.names(found["name"], names.get(found["index"], "")),
                    datatype=datatypes.get(arrays.dtype_of(found["dtype"])),
                    shape=[int(size) for size in found.get("shape_signature", found["shape"])]
                    or [int(size) for size in found["shape"]],
                )
                for found in details
            ]

        inputs = tensor_names.matched(
            tensors(interpreter.get_input_details(), signature[0]),
            release.inputs,
            "input",
            complete=True,
        )
        outputs = tensor_names.matched(
            tensors(interpreter.get_output_details(), signature[1]),
            release.outputs,
            "output",
            complete=False,
        )
        self._to_array, self._to_tensor = arrays.to_array, arrays.to_tensor
        self._lock = threading.Lock()
        self._make = make
        self._take_over(interpreter)
        self._extent = Extent(calls=_SMALL_CALLS)
        self._inputs = [tensor.key for tensor in inputs]
        self._outputs = [
            (tensor.key, spec.name, spec.datatype)
            for tensor, spec in zip(outputs, release.outputs, strict=True)
        ]
        self._shapes = [_first_shape(spec) for spec in release.inputs]
        self._resize(self._shapes)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the model; see `Model.run`.

        Raises:
            BackendError: LiteRT failed.
        """
        to_array, to_tensor = self._to_array, self._to_tensor
        with self._lock:
            try:
                shapes = [tensor.shape for tensor in inputs]
                if self._extent.has_fallen():
                    self._give_back()
                if shapes != self._shapes:
                    self._resize(shapes)
                for index, tensor in zip(self._inputs, inputs, strict=True):
                    self._set(index, to_array(tensor))
                self._invoke()
                outputs = [
                    to_tensor(name, datatype, self._get(index))
                    for index, name, datatype in self._outputs
                ]
            except (ValueError, RuntimeError) as error:
                raise BackendError(f"LiteRT failed: {error}") from error
            self._extent.ran(inputs, outputs)
            return outputs

    def close(self) -> None:
        """Drop the interpreter, which frees its memory and, after it, the delegate."""
        del self._set, self._get, self._invoke, self._interpreter

    def _take_over(self, interpreter: _Interpreter) -> None:
        self._interpreter = interpreter
        self._set, self._get, self._invoke = (
            interpreter.set_tensor,
            interpreter.get_tensor,
            interpreter.invoke,
        )

    def _give_back(self) -> None:
        """Begin anew with an interpreter that has never run a large call: its memory only grows."""
        try:
            self._take_over(self._make())
        except (ValueError, RuntimeError) as error:
            logger.warning("memory_not_given_back", extra={"reason": str(error)})
            return
        self._shapes = []

    def _resize(self, shapes: list[list[int]]) -> None:
        # While this fails, no shape is taken for the one that the interpreter has.
        self._shapes = []
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = [list(shape) for shape in shapes]


def _library() -> ModuleType:
    for package in _PACKAGES:
        if files_of(package):
            return imported(f"{package}.interpreter", library="LiteRT", extra="litert")
    return imported("ai_edge_litert.interpreter", library="LiteRT", extra="litert")


def try_delegate(library: Path, options: dict[str, str], model: Path | None) -> None:
    """Load a delegate, and run a model on it once with whatever its inputs hold.

    Raises:
        LoadError: LiteRT is missing.
        ValueError, RuntimeError, OSError: it does not work. It may also crash the process.
    """
    litert = _library()
    ctypes.CDLL(str(library))  # says why a file is no library, which LiteRT does not
    delegate = litert.load_delegate(str(library), options)
    if model is not None:
        interpreter = litert.Interpreter(model_path=str(model), experimental_delegates=[delegate])
        interpreter.allocate_tensors()
        interpreter.invoke()


def _signature(interpreter: _Interpreter) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of inputs and outputs by tensor index in the model's only signature."""
    listed: dict[str, dict[str, dict[str, int]]] = {}
    full = getattr(interpreter, "_get_full_signature_list", None)
    if full is not None:
        listed = full()
    if len(listed) != 1:
        return {}, {}
    (only,) = listed.values()
    return tensor_names.inverted(only["inputs"]), tensor_names.inverted(only["outputs"])


def _first_shape(spec: TensorSpec) -> list[int]:
    return [max(size, 1) for size in spec.shape]


def _load_error(error: Exception, release: ActiveRelease) -> LoadError:
    what = f"{release.family} {release.version} ({release.variant})"
    text = str(error)
    if _EDGE_TPU_OP in text and "resolve" in text:
        return LoadError(
            f"{what} was compiled for the Edge TPU and cannot run on {release.accelerator}: its "
            f"variant must list the accelerator {EDGE_TPU!r}, and the device needs a Coral Edge "
            "TPU with libedgetpu"
        )
    return LoadError(f"LiteRT cannot load {what}: {text.strip()}")

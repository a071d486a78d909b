"""ONNX Runtime on the CPU: the only module that imports onnxruntime."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.tensors import Tensor, described
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_D = Datatype
_TYPES: dict[str, Datatype] = {
    "tensor(bool)": _D.BOOL,
    "tensor(uint8)": _D.UINT8,
    "tensor(uint16)": _D.UINT16,
    "tensor(uint32)": _D.UINT32,
    "tensor(uint64)": _D.UINT64,
    "tensor(int8)": _D.INT8,
    "tensor(int16)": _D.INT16,
    "tensor(int32)": _D.INT32,
    "tensor(int64)": _D.INT64,
    "tensor(float16)": _D.FP16,
    "tensor(float)": _D.FP32,
    "tensor(double)": _D.FP64,
    "tensor(string)": _D.BYTES,
}
_LOG_ERRORS_ONLY = 3


class _Node(Protocol):
    """What onnxruntime says about an input or output; it ships no types of its own."""

    name: str
    type: str
    shape: list[int | str | None]


class _Session(Protocol):
    """What we use of an ``onnxruntime.InferenceSession``."""

    def run(
        self, output_names: list[str], input_feed: "dict[str, NDArray[np.generic]]"
    ) -> "list[NDArray[np.generic]]": ...


class OnnxRuntimeBackend:
    """Loads ONNX files."""

    name = "onnxruntime"

    def __init__(self, *, threads: int) -> None:
        """Keep the settings; the library is imported later.

        Args:
            threads: threads of one call.
        """
        self._threads = threads

    def version(self) -> str | None:
        """Return the library's version, None where it is not installed."""
        try:
            return str(_library().__version__)
        except LoadError:
            return None

    def load(self, path: Path, release: ActiveRelease) -> "OnnxRuntimeModel":
        """Load an ONNX file; see `Backend.load`.

        Raises:
            LoadError: see there.
        """
        if release.accelerator != "cpu":
            raise LoadError(
                f"{release.family} {release.version} wants the accelerator "
                f"{release.accelerator!r}; here ONNX Runtime serves cpu only"
            )
        library = _library()
        options = library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS_ONLY
        # A thread that spins while it waits takes the core from the application.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            session = library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise LoadError(
                f"ONNX Runtime cannot load {release.family} {release.version} "
                f"({release.variant}): {error}"
            ) from error
        _check(session.get_inputs(), release.inputs, "input", complete=True)
        _check(session.get_outputs(), release.outputs, "output", complete=False)
        return OnnxRuntimeModel(session, release.outputs)


class OnnxRuntimeModel:
    """A session; ONNX Runtime lets several threads run it at once."""

    def __init__(self, session: _Session, outputs: Sequence[TensorSpec]) -> None:
        """Take over a session whose inputs and outputs have been checked."""
        # numpy comes with onnxruntime and is as late and as optional.
        from edge_agent.inference.backends import arrays  # noqa: PLC0415

        self._to_array = arrays.to_array
        self._to_tensor = arrays.to_tensor
        self._run = session.run
        self._outputs = [(spec.name, spec.datatype) for spec in outputs]
        self._output_names = [spec.name for spec in outputs]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the model; see `Model.run`.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        to_array, to_tensor = self._to_array, self._to_tensor
        feed = {tensor.name: to_array(tensor) for tensor in inputs}
        try:
            results = self._run(self._output_names, feed)
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise BackendError(f"ONNX Runtime failed: {error}") from error
        return [
            to_tensor(name, datatype, result)
            for (name, datatype), result in zip(self._outputs, results, strict=True)
        ]

    def close(self) -> None:
        """Drop the session, which frees its memory."""
        del self._run


def _library() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise LoadError(
            f"ONNX Runtime is not usable here ({error}); install it with: "
            "pip install 'skerry[onnx]'"
        ) from error


def _check(
    found: Sequence[_Node],
    specs: Sequence[TensorSpec],
    kind: str,
    *,
    complete: bool,
) -> None:
    by_name = {node.name: node for node in found}
    declared = {spec.name for spec in specs}
    missing = declared - set(by_name)
    undeclared = set(by_name) - declared if complete else set()
    if missing or undeclared:
        raise LoadError(
            f"the model's {kind}s are {sorted(by_name)}, the release declares {sorted(declared)}"
        )
    for spec in specs:
        node = by_name[spec.name]
        datatype = _TYPES.get(node.type)
        # A free dimension of the model is None or a name; one that the release leaves free must
        # be free in the model too, or calls that the release allows would fail.
        shape = [size if isinstance(size, int) else -1 for size in node.shape]
        fits = len(shape) == len(spec.shape) and all(
            size in (-1, wanted) for size, wanted in zip(shape, spec.shape, strict=True)
        )
        if datatype is not spec.datatype or not fits:
            raise LoadError(
                f"{kind} {spec.name!r} of the model is "
                f"{described(datatype, shape) if datatype else node.type}, the release declares "
                f"{described(spec.datatype, spec.shape)}"
            )

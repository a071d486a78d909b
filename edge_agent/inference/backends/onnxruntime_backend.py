"""ONNX Runtime on CPU, CUDA and TensorRT: the only module that imports onnxruntime.

Asked for a provider that is absent, ONNX Runtime warns and computes on the CPU. Here that is an
error: a release runs where its `ActiveRelease` says, or not at all.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from edge_agent.hardware import DeviceKind, Hardware
from edge_agent.inference.backends.base import CPU
from edge_agent.inference.backends.engine_cache import EngineCache
from edge_agent.inference.backends.extent import Extent
from edge_agent.inference.backends.installed_library import files_of, imported
from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.tensors import Tensor, described
from edge_agent.inference.warm_up import run_once
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype, Format, TensorSpec

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
_LOG_NOTHING = 4
"""Its exceptions say the same, and on standard error it would stand between the log's lines."""

_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")
"""Of one run: what the arena does not use afterwards goes back."""

_TENSORRT = "tensorrt"
_TENSORRT_PROVIDER = "TensorrtExecutionProvider"

_PROVIDERS: dict[str, tuple[str, ...]] = {
    CPU: ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    # What TensorRT does not know runs on CUDA.
    _TENSORRT: (_TENSORRT_PROVIDER, "CUDAExecutionProvider"),
}

_SMALLEST_MODEL = bytes.fromhex(
    "08083a330a0c0a0178120179220452656c751201675a0f0a0178120a0a"
    "08080112040a020801620f0a0179120a0a08080112040a0208014202100d"
)
"""One Relu of one number: whether a provider works shows only when a session is made."""


class _Node(Protocol):
    """What onnxruntime says about an input or output; it ships no types of its own."""

    name: str
    type: str
    shape: list[int | str | None]


class _Session(Protocol):
    """What we use of an ``onnxruntime.InferenceSession``."""

    def get_inputs(self) -> list[_Node]: ...
    def get_outputs(self) -> list[_Node]: ...
    def get_providers(self) -> list[str]: ...

    def run(
        self,
        output_names: list[str],
        input_feed: "dict[str, NDArray[np.generic]]",
        run_options: object,
    ) -> "list[NDArray[np.generic]]": ...


class OnnxRuntimeBackend:
    """Loads ONNX files."""

    name = "onnxruntime"
    formats = frozenset({Format.ONNX})
    accelerators = tuple(_PROVIDERS)

    def __init__(self, *, threads: int, engines: EngineCache | None = None) -> None:
        """Keep the settings; the library is imported later.

        Args:
            threads: threads of one call.
            engines: keeps TensorRT's engines; None builds them with every load.
        """
        self._threads = threads
        self._engines = engines

    def files(self) -> list[Path]:
        """Return the library's file if it is installed."""
        return files_of("onnxruntime")

    def version(self) -> str | None:
        """Return the library's version, None where it is not installed."""
        try:
            return str(_library().__version__)
        except LoadError:
            return None

    def why_not(self, accelerator: str, hardware: Hardware) -> str | None:
        """Return why an accelerator cannot be used here, None where it can."""
        if accelerator == CPU:
            return None
        gpus = hardware.of_kind(DeviceKind.NVIDIA_GPU)
        if not gpus:
            return "no NVIDIA GPU is here"
        if all(gpu.problem for gpu in gpus):
            return gpus[0].problem
        try:
            self._session(_SMALLEST_MODEL, accelerator)
        except LoadError as error:
            return str(error)
        return None

    def load(self, path: Path, release: ActiveRelease) -> "OnnxRuntimeModel":
        """Load an ONNX file; see `Backend.load`.

        Raises:
            LoadError: see there.
        """
        if release.accelerator not in _PROVIDERS:
            raise LoadError(
                f"{release.family} {release.version} wants the accelerator "
                f"{release.accelerator!r}; ONNX Runtime serves {', '.join(_PROVIDERS)}"
            )
        try:
            return self._model(path, release)
        except LoadError as error:
            raise LoadError(
                f"ONNX Runtime cannot load {release.family} {release.version} "
                f"({release.variant}) on {release.accelerator}: {error}"
            ) from error

    def _model(self, path: Path, release: ActiveRelease) -> "OnnxRuntimeModel":
        if release.accelerator != _TENSORRT or self._engines is None:
            return self._checked(self._session(str(path), release.accelerator), release)
        folder = self._engines.folder(release.sha256, str(_library().__version__))
        kept = folder.exists()
        try:
            return self._with_engines(path, release, self._engines, folder)
        except LoadError:
            if not kept:
                raise
            # It may have been the kept engine's fault, which is gone now.
            return self._with_engines(path, release, self._engines, folder)

    def _with_engines(
        self, path: Path, release: ActiveRelease, engines: EngineCache, folder: Path
    ) -> "OnnxRuntimeModel":
        with engines.opened(folder) as opened:
            session = self._session(str(path), release.accelerator, engines=opened)
            model = self._checked(session, release)
            # Where sizes are free, the engine is built, or read, by the first run.
            run_once(model, release)
            return model

    def _checked(self, session: _Session, release: ActiveRelease) -> "OnnxRuntimeModel":
        _check(session.get_inputs(), release.inputs, "input", complete=True)
        _check(session.get_outputs(), release.outputs, "output", complete=False)
        shrinking = None
        if release.accelerator == CPU:
            shrinking = _library().RunOptions()
            shrinking.add_run_config_entry(*_SHRINK)
        return OnnxRuntimeModel(session, release, shrinking)

    def _session(
        self,
        model: str | bytes,
        accelerator: str,
        *,
        engines: Path | None = None,
    ) -> _Session:
        library = _library()
        # What does not belong to a session is written to standard error, in colours.
        library.set_default_logger_severity(_LOG_NOTHING)
        providers = _PROVIDERS[accelerator]
        absent = set(providers) - set(library.get_available_providers())
        if absent:
            raise LoadError(
                f"the installed ONNX Runtime has no {' and no '.join(sorted(absent))}; install "
                "onnxruntime-gpu instead of onnxruntime, not beside it: both own one folder"
            )
        try:
            session: _Session = library.InferenceSession(
                model,
                self._options(library, accelerator),
                providers=[(name, _provider_options(name, engines)) for name in providers],
            )
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise LoadError(str(error)) from error
        used = session.get_providers()
        if not used or used[0] != providers[0]:
            raise LoadError(
                f"ONNX Runtime would run it on {', '.join(used)} instead of {providers[0]}: "
                "the driver or the libraries of that provider do not load here"
            )
        return session

    def _options(self, library: ModuleType, accelerator: str) -> object:
        options = library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_NOTHING
        # A thread that spins while it waits takes the core from the application.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if accelerator != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options


class OnnxRuntimeModel:
    """A session; ONNX Runtime lets several threads run it at once."""

    max_concurrent_runs = None

    def __init__(self, session: _Session, release: ActiveRelease, shrinking: object) -> None:
        """Take over a session whose inputs and outputs have been checked.

        Args:
            session: which runs the model.
            release: says which outputs, and in which order.
            shrinking: options of a run after which unused memory goes back; None keeps it.
        """
        # numpy comes with onnxruntime and is as late and as optional.
        from edge_agent.inference.backends import arrays  # noqa: PLC0415

        self._to_array = arrays.to_array
        self._to_tensor = arrays.to_tensor
        # `InferenceSession.run` checks in Python what is checked here already, for longer than the
        # call itself takes, and goes on with another provider when one fails.
        self._run = getattr(session, "_sess", session).run
        self._outputs = [(spec.name, spec.datatype) for spec in release.outputs]
        self._output_names = [spec.name for spec in release.outputs]
        self._has_strings = any(
            spec.datatype is _D.BYTES for spec in (*release.inputs, *release.outputs)
        )
        self._shrinking = shrinking
        self._extent = Extent()

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the model; see `Model.run`.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        return self.outputs(inputs, self.results(self.feed(inputs)))

    def staged(self, inputs: Sequence[Tensor]) -> "OnnxRuntimeRun | None":
        """Prepare a run; see `StagedModel.staged`. Strings are converted one by one: None."""
        return None if self._has_strings else OnnxRuntimeRun(self, inputs)

    def feed(self, inputs: Sequence[Tensor]) -> "dict[str, NDArray[np.generic]]":
        """Return the inputs as the session takes them."""
        to_array = self._to_array
        return {tensor.name: to_array(tensor) for tensor in inputs}

    def results(self, feed: "dict[str, NDArray[np.generic]]") -> "list[NDArray[np.generic]]":
        """Run the session.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        options = self._shrinking if self._extent.has_fallen() else None
        try:
            return self._run(self._output_names, feed, options)
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise BackendError(f"ONNX Runtime failed: {error}") from error

    def outputs(
        self, inputs: Sequence[Tensor], results: "list[NDArray[np.generic]]"
    ) -> list[Tensor]:
        """Return the results of a run as tensors."""
        to_tensor = self._to_tensor
        outputs = [
            to_tensor(name, datatype, result)
            for (name, datatype), result in zip(self._outputs, results, strict=True)
        ]
        self._extent.ran(inputs, outputs)
        return outputs

    def close(self) -> None:
        """Drop the session, which frees its memory."""
        del self._run


class OnnxRuntimeRun:
    """One run of a session; see `StagedRun`."""

    __slots__ = ("_feed", "_inputs", "_model", "_results")

    def __init__(self, model: OnnxRuntimeModel, inputs: Sequence[Tensor]) -> None:
        """Prepare it.

        Raises:
            RequestError: a string is not UTF-8.
        """
        self._model = model
        self._inputs = inputs
        self._feed = model.feed(inputs)
        self._results: list[NDArray[np.generic]] = []

    def compute(self) -> None:
        """Run the session.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        self._results = self._model.results(self._feed)

    def outputs(self) -> list[Tensor]:
        """Return what it has computed."""
        return self._model.outputs(self._inputs, self._results)


def _provider_options(provider: str, engines: Path | None) -> dict[str, str]:
    """Return the options of a provider.

    Source: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
    """
    if provider != _TENSORRT_PROVIDER or engines is None:
        return {}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
    }


def _library() -> ModuleType:
    return imported("onnxruntime", library="ONNX Runtime", extra="onnx")


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

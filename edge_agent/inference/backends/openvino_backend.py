"""OpenVINO for ONNX files: the only module that imports it.

Its accelerators have names of their own, such as ``openvino-cpu``: it computes with other kernels
than ONNX Runtime, so it runs what the publisher has measured with it and nothing else.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from edge_agent.hardware import DeviceKind, Hardware
from edge_agent.inference.backends import tensor_names
from edge_agent.inference.backends.installed_library import files_of, imported
from edge_agent.inference.backends.tensor_names import ModelTensor
from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype, Format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_D = Datatype
_TYPES = {
    "boolean": _D.BOOL,
    "u8": _D.UINT8,
    "u16": _D.UINT16,
    "u32": _D.UINT32,
    "u64": _D.UINT64,
    "i8": _D.INT8,
    "i16": _D.INT16,
    "i32": _D.INT32,
    "i64": _D.INT64,
    "f16": _D.FP16,
    "f32": _D.FP32,
    "f64": _D.FP64,
}
_DEVICES = {"openvino-cpu": "CPU", "openvino-gpu": "GPU", "openvino-npu": "NPU"}
_HARDWARE = {
    "openvino-gpu": (DeviceKind.INTEL_GPU, "no Intel GPU is here"),
    "openvino-npu": (DeviceKind.INTEL_NPU, "no Intel NPU is here"),
}


class _Port(Protocol):
    """An input or output of a compiled model."""

    def get_names(self) -> set[str]: ...
    def get_element_type(self) -> "_Type": ...
    def get_partial_shape(self) -> "list[_Dimension]": ...


class _Type(Protocol):
    def get_type_name(self) -> str: ...


class _Dimension(Protocol):
    @property
    def is_dynamic(self) -> bool: ...
    def get_length(self) -> int: ...


class _OutputTensor(Protocol):
    @property
    def data(self) -> "NDArray[np.generic]": ...


class _Request(Protocol):
    def infer(self, inputs: "dict[int, NDArray[np.generic]]", *, share_inputs: bool) -> object: ...
    def get_output_tensor(self, index: int) -> _OutputTensor: ...


class _Compiled(Protocol):
    @property
    def inputs(self) -> list[_Port]: ...
    @property
    def outputs(self) -> list[_Port]: ...
    def create_infer_request(self) -> _Request: ...


class OpenVinoBackend:
    """Loads ONNX files on Intel's devices and any x86 or Arm CPU."""

    name = "openvino"
    formats = frozenset({Format.ONNX})
    accelerators = tuple(_DEVICES)

    def __init__(self, *, threads: int) -> None:
        """Keep the settings; the library is imported later.

        Args:
            threads: threads of one call on the CPU.
        """
        self._threads = threads

    def files(self) -> list[Path]:
        """Return the library's file if it is installed."""
        return files_of("openvino")

    def version(self) -> str | None:
        """Return the library's version, None where it is not usable."""
        try:
            return str(_library().__version__).partition("-")[0]
        except LoadError:
            return None

    def why_not(self, accelerator: str, hardware: Hardware) -> str | None:
        """Return why an accelerator cannot be used here, None where it can."""
        if accelerator in _HARDWARE:
            kind, absent = _HARDWARE[accelerator]
            devices = hardware.of_kind(kind)
            if not devices:
                return absent
            if all(device.problem for device in devices):
                return devices[0].problem
        found = [str(device).partition(".")[0] for device in _library().Core().available_devices]
        if _DEVICES[accelerator] in found:
            return None
        return f"OpenVINO does not see the device: its driver is missing (it sees {found})"

    def load(self, path: Path, release: ActiveRelease) -> "OpenVinoModel":
        """Load an ONNX file; see `Backend.load`.

        Raises:
            LoadError: see there.
        """
        device = _DEVICES.get(release.accelerator)
        if device is None:
            raise LoadError(
                f"{release.family} {release.version} wants the accelerator "
                f"{release.accelerator!r}; OpenVINO serves {', '.join(_DEVICES)}"
            )
        library = _library()
        try:
            core = library.Core()
            compiled = core.compile_model(
                core.read_model(path.read_bytes(), b""), device, self._configuration(device)
            )
            precision = (
                compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
                if device != "NPU"
                else "f32"
            )
        except (RuntimeError, OSError) as error:
            raise LoadError(
                f"OpenVINO cannot load {release.family} {release.version} ({release.variant}) on "
                f"{device}: {error}"
            ) from error
        if precision != "f32":
            raise LoadError(
                f"OpenVINO would compute {release.family} {release.version} in {precision} on "
                f"{device}, not as the publisher measured it"
            )
        return OpenVinoModel(compiled, release)

    def _configuration(self, device: str) -> dict[str, str | int]:
        chosen: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
        if device != "NPU":
            # Its default is BF16 or FP16 where the device has it, without a word. An NPU computes
            # in FP16 only; there the golden check decides.
            chosen["INFERENCE_PRECISION_HINT"] = "f32"
        if device == "CPU":
            chosen |= {"INFERENCE_NUM_THREADS": self._threads, "NUM_STREAMS": 1}
        return chosen


class OpenVinoModel:
    """A compiled model with one request; a lock makes several callers wait for each other."""

    max_concurrent_runs = 1

    def __init__(self, compiled: _Compiled, release: ActiveRelease) -> None:
        """Take over a compiled model and match its tensors.

        Raises:
            LoadError: inputs or outputs are not those that the release declares.
        """
        # numpy comes with OpenVINO and is as late and as optional.
        from edge_agent.inference.backends import arrays  # noqa: PLC0415

        inputs = tensor_names.matched(
            _tensors(compiled.inputs), release.inputs, "input", complete=True
        )
        outputs = tensor_names.matched(
            _tensors(compiled.outputs), release.outputs, "output", complete=False
        )
        self._to_array, self._to_tensor = arrays.to_array, arrays.to_tensor
        self._request = compiled.create_infer_request()
        self._inputs = [tensor.key for tensor in inputs]
        self._outputs = [
            (tensor.key, spec.name, spec.datatype)
            for tensor, spec in zip(outputs, release.outputs, strict=True)
        ]
        self._lock = threading.Lock()

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the model; see `Model.run`.

        Raises:
            BackendError: OpenVINO failed.
        """
        feed = {
            index: self._to_array(tensor)
            for index, tensor in zip(self._inputs, inputs, strict=True)
        }
        with self._lock:
            try:
                self._request.infer(feed, share_inputs=True)
                # Copied: the next call computes into the same memory.
                return [
                    self._to_tensor(
                        name, datatype, self._request.get_output_tensor(index).data.copy()
                    )
                    for index, name, datatype in self._outputs
                ]
            except RuntimeError as error:
                raise BackendError(f"OpenVINO failed: {error}") from error

    def close(self) -> None:
        """Drop the request, which frees the model."""
        del self._request


def _tensors(ports: Sequence[_Port]) -> list[ModelTensor[int]]:
    return [
        ModelTensor(
            key=index,
            names=frozenset(port.get_names()),
            datatype=_TYPES.get(port.get_element_type().get_type_name()),
            shape=[
                -1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()
            ],
        )
        for index, port in enumerate(ports)
    ]


def _library() -> ModuleType:
    return imported("openvino", library="OpenVINO", extra="openvino")

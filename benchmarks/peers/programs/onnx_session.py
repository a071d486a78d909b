"""The session of ONNX Runtime, the same in every peer and in the bare measurement."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class TensorInfo(Protocol):
    """What onnxruntime says about an input or output; it ships no types of its own."""

    name: str
    type: str
    shape: list[int]


class Session(Protocol):
    """What is used of an ``onnxruntime.InferenceSession``."""

    def run(
        self, names: None, feeds: Mapping[str, NDArray[np.generic]]
    ) -> list[NDArray[np.generic]]:
        """Return all outputs."""
        ...

    def get_inputs(self) -> Sequence[TensorInfo]:
        """Describe the inputs."""
        ...

    def get_outputs(self) -> Sequence[TensorInfo]:
        """Describe the outputs."""
        ...


def numpy_type(tensor: TensorInfo) -> type[np.generic]:
    """Return the type of an input's numbers.

    Raises:
        KeyError: it is none that the measured models have.
    """
    known: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    return known[tensor.type]


def open_session(path: Path | str) -> Session:
    """Return a session with one thread that sleeps when it has nothing to do."""
    options = onnxruntime.SessionOptions()  # type: ignore[attr-defined] # no list of exports
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(  # type: ignore[attr-defined] # no list of exports
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return cast("Session", session)

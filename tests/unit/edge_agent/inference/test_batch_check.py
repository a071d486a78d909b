"""Models whose first dimension is a batch, and models that only look so."""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.inference.backends.arrays import DTYPES, to_array, to_tensor
from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.batch_check import why_not_together
from edge_agent.inference.errors import BackendError
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.simulators.onnx_files import identity_release, one_node_release
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release
from tests.unit.edge_agent.inference.reference_release import reference_release

FP32 = Datatype.FP32
DEPENDS = "depends on the one that it is in a batch with"

Array = NDArray[np.float32]


def verdict(state: StateDir, release: ActiveRelease) -> str:
    model = OnnxRuntimeBackend(threads=1).load(state.blob(release.sha256), release)
    try:
        return why_not_together(model, release)
    finally:
        model.close()


def x_to_y(shape: Sequence[int], datatype: Datatype = FP32) -> tuple[list[TensorSpec], ...]:
    return tuple(
        [TensorSpec(name=name, datatype=datatype, shape=list(shape))] for name in ("x", "y")
    )


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "reason"),
    [
        ("Softmax", [-1, 3], {"axis": 1}, ""),
        ("Softmax", [-1, 3], {"axis": 0}, DEPENDS),
        ("Softmax", [-1], {}, DEPENDS),  # along the last axis, which is the first one
        ("Hardmax", [-1, 3], {"axis": 0}, DEPENDS),
        ("LpNormalization", [-1, 3], {"axis": 1}, ""),
        ("LpNormalization", [-1, 3], {"axis": 0}, DEPENDS),
        ("GlobalMaxPool", [-1, 2, 3, 3], {}, ""),
        ("MeanVarianceNormalization", [-1, 2, 3, 3], {}, DEPENDS),  # of the whole batch
        ("Transpose", [-1, -1], {}, r"shape \[1, 2\] for a batch of 2"),
        ("RandomNormalLike", [-1, 3], {}, DEPENDS),  # nothing to hold a batch against
    ],
)
def test_a_batch_is_what_answers_each_sample_as_if_it_were_alone(
    state: StateDir, operator: str, shape: list[int], attributes: dict[str, int], reason: str
) -> None:
    given, returned = x_to_y(shape)
    if operator == "GlobalMaxPool":
        returned = [TensorSpec(name="y", datatype=FP32, shape=[-1, 2, 1, 1])]
    release = one_node_release(state, "m", operator, given, returned, **attributes)
    assert re.fullmatch(f".*{reason}.*" if reason else "", verdict(state, release))


@pytest.mark.parametrize("datatype", [one for one in Datatype if one is not Datatype.BYTES])
def test_every_datatype_is_tried(state: StateDir, datatype: Datatype) -> None:
    assert verdict(state, identity_release(state, "m", datatype, [-1, 3])) == ""


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_real_networks_are_batched(state: StateDir, precision: str) -> None:
    assert verdict(state, reference_release(state, precision=precision)) == ""


class ArrayModel:
    """A model that is a function of one array."""

    max_concurrent_runs = None

    def __init__(
        self, function: Callable[[Array], Array], datatype: Datatype = Datatype.FP32
    ) -> None:
        self._function = function
        self._datatype = datatype

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        answer = self._function(to_array(inputs[0]).astype(np.float32))
        return [to_tensor("y", self._datatype, answer.astype(DTYPES[self._datatype]))]

    def close(self) -> None:
        """Nothing to free."""


def noisy(values: Array) -> Array:
    return values * np.float32(1 + 1e-6 * len(values))


def scaled_noise(factor: np.float32, values: Array) -> Array:
    """Be off by half a step of FP16 in a batch."""
    return values * factor * np.float32(1 + 2.0**-11 * (len(values) > 1))


def scaled_by_what_it_sees(values: Array) -> Array:
    step = np.float32(np.abs(values).max() / 127)
    return np.round(values / step) * step


def broken(values: Array) -> Array:
    if len(values) > 1:
        raise BackendError("no batches here")
    return values


def crashing(values: Array) -> Array:
    if len(values) > 1:
        raise MemoryError
    return values


def undefined(values: Array) -> Array:
    return np.full_like(values, np.nan)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (noisy, ""),
        (undefined, ""),
        (scaled_by_what_it_sees, DEPENDS),
        (broken, "could not be run, alone and as a batch: no batches here"),
        (crashing, "could not be run, alone and as a batch"),
    ],
)
def test_what_the_order_of_sums_may_change_is_no_dependence(
    function: Callable[[Array], Array], reason: str
) -> None:
    found = why_not_together(ArrayModel(function), gated_release())
    assert reason in found
    assert bool(reason) is bool(found)


def test_numbers_of_few_digits_may_be_rounded_the_other_way() -> None:
    for factor in np.linspace(1, 2, 20, dtype=np.float32):  # some of which lie where it matters
        model = ArrayModel(partial(scaled_noise, factor), Datatype.FP16)
        assert why_not_together(model, gated_release()) == ""


async def test_who_is_not_batched_is_not_after_its_sleep_either(state: StateDir) -> None:
    state.create()
    state.blob("0" * 64).touch()
    loader = ReleaseLoader(
        state=state, epoch="", catalog=Catalog([GatedBackend()]), clock=time.perf_counter
    )
    first = loader.load(gated_release(), batched=True)
    assert not first.why_alone
    first.batching_ended("its outputs were no rows")
    again = loader.load(gated_release(), batched=True, before=first)
    assert again.why_alone == "its outputs were no rows"

"""The first calls of a model: they settle its memory, prove that it answers, and time it."""

import math
from collections.abc import Callable
from typing import NamedTuple

from edge_agent.inference.backends.base import Model
from edge_agent.inference.errors import BackendError, LoadError
from edge_agent.inference.tensors import Tensor, described, size_bytes
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import TensorSpec, shape_fits

INLINE_S = 0.0005
"""A hop to a thread and back costs 40 to 80 µs: a call up to this long is run on the loop."""

_RUNS = 5
_ENOUGH_S = 0.5


class WarmUp(NamedTuple):
    """What the first runs have shown.

    Attributes:
        fastest_s: the shortest run of one item.
        inline_bytes: inputs up to this size are run on the event loop.
    """

    fastest_s: float
    inline_bytes: int


def warm_up(model: Model, release: ActiveRelease, clock: Callable[[], float]) -> WarmUp:
    """Run a model on zeros.

    Raises:
        LoadError: the model fails, or gives other outputs than the release declares.
    """
    feed = [_zeros(spec) for spec in release.inputs]
    fastest = math.inf
    began = clock()
    try:
        for _ in range(_RUNS):
            before = clock()
            outputs = model.run(feed)
            after = clock()
            fastest = min(fastest, after - before)
            if after - began > _ENOUGH_S:
                break
    except BackendError as error:
        raise LoadError(
            f"{release.family} {release.version} fails on its first call: {error}"
        ) from error
    for tensor, spec in zip(outputs, release.outputs, strict=True):
        if not shape_fits(tensor.shape, spec):
            raise LoadError(
                f"output {spec.name!r} of {release.family} {release.version} comes as "
                f"{described(tensor.datatype, tensor.shape)}, the release declares "
                f"{described(spec.datatype, spec.shape)}"
            )
    feed_bytes = sum(len(tensor.data) for tensor in feed)
    return WarmUp(fastest, int(feed_bytes * INLINE_S / max(fastest, 1e-6)))


def run_once(model: Model, release: ActiveRelease) -> None:
    """Run a model on zeros.

    Raises:
        LoadError: it fails.
    """
    try:
        model.run([_zeros(spec) for spec in release.inputs])
    except BackendError as error:
        raise LoadError(f"it fails on its first call: {error}") from error


def _zeros(spec: TensorSpec) -> Tensor:
    shape = [max(size, 1) for size in spec.shape]
    return Tensor(
        name=spec.name,
        datatype=spec.datatype,
        shape=shape,
        data=bytes(size_bytes(spec.datatype, shape)),
    )

"""Whether calls on a model may run together: is the first dimension of its tensors a batch?

Nothing in a model's file says so. It may as well count the time steps of one recording, and the
answer to each caller's step would depend on those of the others. So it is tried: two samples that
run as one batch must be answered as each is for itself.
"""

import random

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference import batches
from edge_agent.inference.backends.arrays import DTYPES, to_array, to_tensor
from edge_agent.inference.backends.base import CPU, Model
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype, TensorSpec

_SCALES = (1.0, 4.0)
"""Of the two samples' numbers: what is scaled by the largest one in a batch shall show it."""

_PLACES = 2
"""Integers of 32 bits and more are places in tables, which all have the first two."""

_CPU_PART = 1e-4
"""Of an output's largest number. Sums are added in another order in a batch, which moves FP32 by
some 1e-6; a model that scales by what it sees moves by 1e-3 and more."""

_OTHER_PART = 1e-2
"""The same where accelerators compute, many of them with fewer digits."""

_FLOAT_STEPS = 2
"""Of an output's largest number at least: FP16 has fewer digits than sums in FP32 agree in."""

_STEPS = 1
"""Of an 8 bit output, which the same error may round the other way."""


def why_not_together(model: Model, release: ActiveRelease) -> str:
    """Return why calls on a model must not run together, empty if they may.

    Args:
        model: loaded and warm; it is run three times, with free dimensions of 1 but the first.
        release: whose calls could be joined as far as its declaration goes.
    """
    samples = [[_sample(spec, at) for spec in release.inputs] for at in range(len(_SCALES))]
    try:
        alone = [model.run(sample) for sample in samples]
        together = batches.split(model.run(batches.joined(samples)), [1] * len(samples))
    except batches.IndivisibleError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (whatever it raises, it has not shown to be a batch)
        return f"two samples could not be run, alone and as a batch: {error}"
    part = _CPU_PART if release.accelerator == CPU else _OTHER_PART
    for apart, joined in zip(alone, together, strict=True):
        for one, other in zip(apart, joined, strict=True):
            if one.shape != other.shape or not _agree(one, other, part):
                return (
                    f"output {one.name!r} of a sample depends on the one that it is in a batch "
                    "with: the first dimension is no batch, or the model scales by what it sees"
                )
    return ""


def _sample(spec: TensorSpec, at: int) -> Tensor:
    """Return an input of the first or the second sample, the same ones at each load."""
    shape = [max(size, 1) for size in spec.shape]
    dtype = DTYPES[spec.datatype]
    count = int(np.prod(shape))
    if dtype.kind == "f":
        drawn = np.frombuffer(_bytes(at, 2 * count), np.uint16).astype(np.float64)
        values: NDArray[np.generic] = ((drawn / 2**15 - 1.0) * _SCALES[at]).astype(dtype)
    elif dtype.itemsize == 1 and spec.datatype is not Datatype.BOOL:
        values = np.frombuffer(_bytes(at, count), dtype)
    else:
        places = np.frombuffer(_bytes(0, count), np.uint8) + np.uint8(at)
        values = (places % _PLACES).astype(dtype)  # never those of the other sample
    return to_tensor(spec.name, spec.datatype, values.reshape(shape))


def _bytes(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)  # noqa: S311 (no secret)


def _agree(one: Tensor, other: Tensor, part: float) -> bool:
    dtype = DTYPES[one.datatype]
    ours, theirs = (to_array(tensor).astype(np.float64) for tensor in (one, other))
    if dtype.kind == "f":
        most = max(part, _FLOAT_STEPS * float(np.finfo(dtype.name).eps)) * _largest(ours)
    else:
        most = _STEPS if dtype.itemsize == 1 and one.datatype is not Datatype.BOOL else 0
    return bool(np.allclose(ours, theirs, rtol=0.0, atol=most, equal_nan=True))


def _largest(values: NDArray[np.float64]) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0

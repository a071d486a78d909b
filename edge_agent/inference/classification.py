"""The highest classes of an output instead of its values.

Source: Triton's classification extension (protocol/extension_classification.md): the output becomes
BYTES, each element ``value:index`` or ``value:index:label``, highest value first.
"""

import heapq
import math
from collections.abc import Iterator, Sequence

from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import Tensor, unpacked
from fleet_protocol import bytes_tensor
from fleet_protocol.manifest import Datatype, TensorSpec

_D = Datatype
_UNRANKED = frozenset({_D.BOOL, _D.BYTES})
_FLOATS = frozenset({_D.FP16, _D.FP32, _D.FP64})
MAX_VALUES = 1 << 18
"""Of one output: ranking more would keep everybody else waiting."""


def ranked(tensor: Tensor, spec: TensorSpec, count: int) -> Tensor:
    """Return the highest classes of an output.

    Args:
        tensor: the output. If its first dimension is free in the release it is the batch, and
            each item is ranked for itself; all other dimensions are one row of classes.
        spec: as the release declares it; its labels are used if there are as many as classes.
        count: classes wanted; all if there are fewer.

    Raises:
        RequestError: the output cannot be ranked.
    """
    total = math.prod(tensor.shape)
    if tensor.datatype in _UNRANKED or not total or total > MAX_VALUES:
        raise RequestError(
            f"output {tensor.name!r} cannot be given as classes: it is {tensor.datatype} and has "
            f"{total} values; numbers can, up to {MAX_VALUES} of them"
        )
    batched = bool(spec.shape) and spec.shape[0] == -1
    rows = tensor.shape[0] if batched else 1
    width = total // rows
    wanted = min(count, width)
    labels = spec.labels if len(spec.labels) == width else []
    values: Sequence[float] = unpacked(tensor)
    written = "{:f}" if tensor.datatype in _FLOATS else "{:d}"
    elements = [
        element
        for at in range(0, total, width)
        for element in _row(values[at : at + width], wanted, written, labels)
    ]
    return Tensor(
        name=tensor.name,
        datatype=Datatype.BYTES,
        shape=[rows, wanted] if batched else [wanted],
        data=bytes_tensor.pack(elements),
    )


def _row(
    values: Sequence[float], wanted: int, written: str, labels: Sequence[str]
) -> Iterator[bytes]:
    def height(index: int) -> float:
        value = values[index]
        return -math.inf if math.isnan(value) else value

    # Among equals the first index comes first, as everywhere in the runtime.
    for index in heapq.nlargest(wanted, range(len(values)), key=height):
        label = f":{labels[index]}" if labels else ""
        yield f"{written.format(values[index])}:{index}{label}".encode()

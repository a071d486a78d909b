"""Several calls as one run: joins inputs along the first dimension and splits the outputs again."""

from collections.abc import Sequence

from edge_agent.inference.errors import BackendError
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype

Feed = list[Tensor]


class IndivisibleError(BackendError):
    """A model's outputs do not have one row for each of its inputs' rows."""


def has_batch_dimension(release: ActiveRelease) -> bool:
    """Say whether the first dimension of every input and output is free."""
    return all(spec.shape and spec.shape[0] == -1 for spec in (*release.inputs, *release.outputs))


def can_be_joined(release: ActiveRelease) -> bool:
    """Say whether calls of a release may run together: each item takes the same number of bytes."""
    return has_batch_dimension(release) and all(
        spec.datatype is not Datatype.BYTES for spec in (*release.inputs, *release.outputs)
    )


def key(feed: Feed) -> tuple[tuple[int, ...], ...]:
    """Return what must be equal for two calls of a release to run together."""
    return tuple(tuple(tensor.shape[1:]) for tensor in feed)


def joined(feeds: Sequence[Feed]) -> Feed:
    """Return one feed with the items of all, in order; the data are copied."""
    return [
        Tensor(
            name=parts[0].name,
            datatype=parts[0].datatype,
            shape=[sum(part.shape[0] for part in parts), *parts[0].shape[1:]],
            data=b"".join([part.data for part in parts]),
        )
        for parts in zip(*feeds, strict=True)
    ]


def split(outputs: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    """Return each call's part of the outputs, over the same memory.

    Args:
        outputs: of the run.
        sizes: items of each call, in order.

    Raises:
        IndivisibleError: an output does not have one row for each item.
    """
    total = sum(sizes)
    shares: list[list[Tensor]] = [[] for _ in sizes]
    for output in outputs:
        if not output.shape or output.shape[0] != total:
            raise IndivisibleError(
                f"output {output.name!r} has the shape {output.shape} for a batch of {total}"
            )
        data = memoryview(output.data)
        row_bytes = len(data) // total
        begin = 0
        for share, size in zip(shares, sizes, strict=True):
            end = begin + size
            share.append(
                Tensor(
                    name=output.name,
                    datatype=output.datatype,
                    shape=[size, *output.shape[1:]],
                    data=data[begin * row_bytes : end * row_bytes],
                )
            )
            begin = end
    return shares

"""Which of a model's tensors is which of the release's, for libraries with names of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_agent.inference.errors import LoadError
from edge_agent.inference.tensors import described
from fleet_protocol.manifest import Datatype, TensorSpec

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTensor(Generic[Key]):
    """An input or output as the model has it.

    Attributes:
        key: what the library calls it.
        names: all names that it goes by.
        datatype: None for one that does not travel, such as strings.
        shape: -1 where a size is free.
    """

    key: Key
    names: frozenset[str]
    datatype: Datatype | None
    shape: Sequence[int]


def matched(
    found: Sequence[ModelTensor[Key]],
    specs: Sequence[TensorSpec],
    kind: str,
    *,
    complete: bool,
) -> list[ModelTensor[Key]]:
    """Return the model's tensors in the release's order: by name, else by position.

    Position counts only where no name fits, since converters rename tensors as they like but keep
    their order.

    Args:
        found: the model's, in its order.
        specs: the release's.
        kind: "input" or "output", for the message.
        complete: the release must name all of them.

    Raises:
        LoadError: they cannot be told apart, or datatype or shape differ.
    """
    by_name = {name: tensor for tensor in found for name in tensor.names}
    named = [by_name[spec.name] for spec in specs if spec.name in by_name]
    if len(named) == len(specs) and (not complete or len(found) == len(specs)):
        chosen = named
    elif not named and len(found) == len(specs):
        chosen = list(found)
    else:
        raise LoadError(
            f"the model's {kind}s are {[sorted(tensor.names) for tensor in found]}, the release "
            f"declares {[spec.name for spec in specs]}"
        )
    for tensor, spec in zip(chosen, specs, strict=True):
        _check(tensor, spec, kind)
    return chosen


def _check(tensor: ModelTensor[Key], spec: TensorSpec, kind: str) -> None:
    # A size that the release leaves free must be free in the model too, or calls that the release
    # allows would fail.
    fits = len(tensor.shape) == len(spec.shape) and all(
        size in (-1, wanted) for size, wanted in zip(tensor.shape, spec.shape, strict=True)
    )
    if tensor.datatype is not spec.datatype or not fits:
        is_there = (
            described(tensor.datatype, tensor.shape)
            if tensor.datatype is not None
            else f"of a datatype that does not travel, shape {list(tensor.shape)}"
        )
        raise LoadError(
            f"{kind} {spec.name!r} of the model is {is_there}, the release declares "
            f"{described(spec.datatype, spec.shape)}"
            + (" (-1: any size)" if -1 in spec.shape else "")
        )


def names(*given: str) -> frozenset[str]:
    """Return the names that are not empty."""
    return frozenset(name for name in given if name)


def inverted(signature: Mapping[str, int]) -> dict[int, str]:
    """Return names by tensor index."""
    return {index: name for name, index in signature.items()}

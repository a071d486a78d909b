"""Whether a model still fits, and who would have to leave for it: pure decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.inference.errors import LoadError

_MEBIBYTE = 1024 * 1024
_PER_FILE_BYTE = 2
_AT_LEAST = 4 * _MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPolicy:
    """How much memory models may take.

    Attributes:
        budget_bytes: all together.
        evict_idle: the least recently used idle model may leave for another one.
    """

    budget_bytes: int = 1 << 62
    evict_idle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Holding:
    """A model in memory, equal to itself only: a release may leave while it is loaded anew.

    Attributes:
        used_at: when it was last called, in seconds on any one clock.
        may_leave: it is idle and may be loaded again when it is called.
    """

    family: str
    version: str
    memory_bytes: int
    used_at: float
    may_leave: bool


def judged_by_file(file_bytes: int) -> int:
    """Return how much memory a model takes of which only the file is known.

    The weights once as they are in the file and once as the library lays them out, and a little
    for everything else; what is too much here is corrected by measuring once it is loaded.
    """
    return _PER_FILE_BYTE * file_bytes + _AT_LEAST


def room_for(
    name: str, needed_bytes: int, held: Sequence[Holding], *, budget_bytes: int
) -> list[Holding]:
    """Return the models that must leave so that another one fits, least recently used first.

    Args:
        name: of the newcomer, for the message.
        needed_bytes: that it will take.
        held: all models in memory, those on their way out among them.
        budget_bytes: for all together.

    Raises:
        LoadError: it does not fit even if all leave that may; the message has the figures.
    """
    taken = sum(holding.memory_bytes for holding in held)
    leaving: list[Holding] = []
    for holding in sorted(held, key=lambda holding: holding.used_at):
        if taken + needed_bytes <= budget_bytes:
            break
        if holding.may_leave:
            leaving.append(holding)
            taken -= holding.memory_bytes
    if taken + needed_bytes <= budget_bytes:
        return leaving
    left = set(leaving)
    staying = ", ".join(
        f"{holding.family} {holding.version} {_mib(holding.memory_bytes)}"
        for holding in held
        if holding not in left
    )
    raise LoadError(
        f"{name} does not fit into memory: it needs about {_mib(needed_bytes)}, the budget for all "
        f"models is {_mib(budget_bytes)} (setting runtime.memory_budget_bytes), and "
        + (f"{_mib(taken)} stay taken by: {staying}" if staying else "nothing else is loaded")
    )


def _mib(size: int) -> str:
    return f"{size / _MEBIBYTE:.1f} MiB"

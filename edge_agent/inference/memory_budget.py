"""Whether a model still fits, and who would have to leave for it: pure decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.inference.errors import NoRoomError

_MEBIBYTE = 1024 * 1024
_PER_FILE_BYTE = 2
_AT_LEAST = 4 * _MEBIBYTE
_RETRY_S = 1.0
"""Calls last for much less; what is on its way out waits for nothing else."""


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
        leaves_soon: it is on its way out, or may leave as soon as its calls have ended.
    """

    family: str
    version: str
    memory_bytes: int
    used_at: float
    may_leave: bool
    leaves_soon: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a model takes once it is loaded for so many runs at a time.

    Attributes:
        first_bytes: with one run at a time.
        further_bytes: that each further one adds: weights as they are in the file are there once,
            all else, such as the arena, once for each.
        instances: runs at a time that were asked for.
    """

    first_bytes: int
    further_bytes: int = 0
    instances: int = 1

    @property
    def total_bytes(self) -> int:
        """For all instances."""
        return self.first_bytes + (self.instances - 1) * self.further_bytes

    def __str__(self) -> str:
        if self.instances == 1:
            return _mib(self.total_bytes)
        return (
            f"{_mib(self.total_bytes)} ({self.instances} instances, the first "
            f"{_mib(self.first_bytes)}, each further one {_mib(self.further_bytes)}; setting "
            "runtime.instances)"
        )


def need_of(*, measured_bytes: int, file_bytes: int, instances: int) -> Need:
    """Return what a model will take, as far as that is known before it is loaded.

    Where nobody has measured it: the weights once as they are in the file and once as the library
    lays them out, and a little for everything else; what is too much here is corrected by
    measuring once it is loaded.

    Args:
        measured_bytes: as its publisher has measured it, with one run at a time; 0 if nobody has.
        file_bytes: size of its file.
        instances: runs at a time that shall be possible.
    """
    first = measured_bytes or _PER_FILE_BYTE * file_bytes + _AT_LEAST
    return Need(first_bytes=first, further_bytes=max(0, first - file_bytes), instances=instances)


def room_for(name: str, need: Need, held: Sequence[Holding], *, budget_bytes: int) -> list[Holding]:
    """Return the models that must leave so that another one fits, least recently used first.

    Args:
        name: of the newcomer, for the message.
        need: what it will take.
        held: all models in memory, those on their way out among them.
        budget_bytes: for all together.

    Raises:
        NoRoomError: it does not fit even if all leave that may; the message has the figures, and
            `retry_after_s` says whether it will once those in use have become idle.
    """
    needed_bytes = need.total_bytes
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
    soon = sum(each.memory_bytes for each in held if each.leaves_soon and each not in left)
    staying = ", ".join(
        f"{holding.family} {holding.version} {_mib(holding.memory_bytes)}"
        for holding in held
        if holding not in left
    )
    raise NoRoomError(
        f"{name} does not fit into memory: it needs about {need}, the budget for all "
        f"models is {_mib(budget_bytes)} (setting runtime.memory_budget_bytes), and "
        + (f"{_mib(taken)} stay taken by: {staying}" if staying else "nothing else is loaded"),
        retry_after_s=_RETRY_S if taken - soon + needed_bytes <= budget_bytes else None,
    )


def _mib(size: int) -> str:
    return f"{size / _MEBIBYTE:.1f} MiB"

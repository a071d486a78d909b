"""Measures several times, each time in a new process that starts everything else anew.

Where a process's memory comes to lie decides about its caches: of six processes that run the same
model, one after the other on one processor, the slowest took 8 % longer than the fastest, and
stayed so for as long as it lived. A ratio of two processes is luck; that of several pairs is not.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_fresh_processes(
    rounds: int,
    measure: Callable[_Arguments, _Result],
    *arguments: _Arguments.args,
    **named: _Arguments.kwargs,
) -> list[_Result]:
    """Return what each of so many measurements found, one after the other.

    Args:
        rounds: how many.
        measure: a function of a module; what it takes and returns is pickled.
        arguments: for it.
        named: likewise.

    Raises:
        SystemExit: one of them could not be made.
    """
    found = []
    for _ in range(rounds):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found.append(process.submit(measure, *arguments, **named).result())
    return found

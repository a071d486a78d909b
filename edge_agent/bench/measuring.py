"""Measures contenders in turns: each in a process of its own, one of them working at a time.

A machine that gets hot, or busy with something else, then slows all of them down alike, and the
ratios between them stay true.
"""

import math
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TypeVar

import msgspec

from edge_agent.bench.subject import Entry, Subject
from edge_agent.bench.worker import MODULE, Done, Job, Loaded, Order
from edge_agent.runtime_api import ActiveRelease, Placement

_TURNS = 12
_END_S = 10.0
_NEEDS_ITS_OWN_COMPILER = "edgetpu"
_Answer = TypeVar("_Answer")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one variant in one place.

    Attributes:
        released: the publisher lists the accelerator for the variant; others are shown to compare.
        speed_up: p50 of the base row over this one's; the base is the first FP32 row on the CPU, or
            the first of all.
        problem: why it was not measured; empty if it was.
    """

    variant: str
    precision: str
    backend: str
    accelerator: str
    released: bool
    calls: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    calls_per_s: float = 0.0
    speed_up: float | None = None
    load_s: float = 0.0
    resident_mib: float = 0.0
    problem: str = ""


class _Contender:
    """One worker process and what it has measured."""

    def __init__(self, row: Row, job: Job) -> None:
        self.row = row
        self.seconds: list[float] = []
        self.rates: list[float] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.loaded = self._ask(job, Loaded)
        except (EOFError, OSError):
            self.loaded = Loaded(problem=f"the process that loaded it {self._end()}")

    def work(self, *, calls: int = 0, seconds: float = 0.0) -> None:
        """Run calls, or run into the end of the process, which takes the contender out."""
        if self.loaded.problem:
            return
        try:
            done = self._ask(Order(calls=calls, seconds=seconds), Done)
        except (EOFError, OSError):
            self.loaded = Loaded(problem=f"the process that ran it {self._end()}")
            return
        self.seconds += done.seconds
        if seconds:
            self.rates.append(done.calls_per_s)

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def result(self) -> Row:
        """Return the row with its figures."""
        loaded = self.loaded
        if loaded.problem:
            return msgspec.structs.replace(self.row, problem=loaded.problem)
        ordered = sorted(self.seconds)
        return msgspec.structs.replace(
            self.row,
            calls=len(ordered),
            p50_ms=round(_quantile(ordered, 0.5) * 1000, 4),
            p95_ms=round(_quantile(ordered, 0.95) * 1000, 4),
            p99_ms=round(_quantile(ordered, 0.99) * 1000, 4),
            calls_per_s=round(_quantile(sorted(self.rates), 0.5), 2),
            load_s=round(loaded.load_s, 3),
            resident_mib=round(loaded.resident_bytes / 2**20, 1),
        )

    def _ask(self, what: msgspec.Struct, answer: type[_Answer]) -> _Answer:
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise EOFError
        stdin.write(msgspec.json.encode(what) + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise EOFError
        return msgspec.json.decode(line, type=answer)

    def _end(self) -> str:
        try:
            status = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "does not answer"
        return f"died of signal {-status}" if status < 0 else f"ended with exit status {status}"


def measured(
    subject: Subject,
    placements: Sequence[Placement],
    *,
    seconds: float,
    threads: int,
    edgetpu_library: str = "",
) -> list[Row]:
    """Measure every file of a model wherever it can run.

    Args:
        subject: the model.
        placements: what the backends can do here.
        seconds: how long to measure, loading not counted.
        threads: of one call on the CPU.
        edgetpu_library: as in the settings.
    """
    with ExitStack() as closing:
        contenders = []
        for entry in subject.entries:
            for place in _places(entry, placements):
                job = Job(
                    path=str(entry.path),
                    release=_release(subject, entry, place),
                    inputs=entry.inputs,
                    threads=threads,
                    edgetpu_library=edgetpu_library,
                )
                contender = _Contender(_row(entry, place), job)
                closing.callback(contender.close)
                contenders.append(contender)
        _in_turns(contenders, seconds)
        rows = [contender.result() for contender in contenders]
    return _compared(rows) + [
        _row(entry, place) for entry, place in _impossible(subject, placements)
    ]


def _in_turns(contenders: Sequence[_Contender], seconds: float) -> None:
    share_s = seconds / max(1, len(contenders)) / _TURNS / 2
    for _ in range(_TURNS):
        for contender in contenders:
            calls = max(1, math.ceil(share_s / max(contender.loaded.call_s, 1e-6)))
            contender.work(calls=min(calls, 100_000))
        for contender in contenders:
            contender.work(seconds=share_s)


def _places(entry: Entry, placements: Sequence[Placement]) -> list[Placement]:
    return [
        place
        for place in placements
        if place.format is entry.format
        and not place.problem
        and (
            place.accelerator in entry.released_for or place.accelerator != _NEEDS_ITS_OWN_COMPILER
        )
    ]


def _impossible(subject: Subject, placements: Sequence[Placement]) -> list[tuple[Entry, Placement]]:
    return [
        (entry, place)
        for entry in subject.entries
        for place in placements
        if place.format is entry.format
        and place.problem
        and place.accelerator in entry.released_for
    ]


def _row(entry: Entry, place: Placement) -> Row:
    return Row(
        variant=entry.variant,
        precision=entry.precision,
        backend=place.backend,
        accelerator=place.accelerator,
        released=place.accelerator in entry.released_for,
        problem=place.problem,
    )


def _release(subject: Subject, entry: Entry, place: Placement) -> ActiveRelease:
    return ActiveRelease(
        family="bench",
        version="0.0.0",
        variant=entry.variant,
        format=entry.format,
        accelerator=place.accelerator,
        sha256="0" * 64,
        inputs=subject.inputs,
        outputs=subject.outputs,
        backend=place.backend,
    )


def _compared(rows: list[Row]) -> list[Row]:
    good = [row for row in rows if not row.problem]
    base = next((row for row in good if (row.precision, row.accelerator) == ("fp32", "cpu")), None)
    base = base or next(iter(good), None)
    if base is None:
        return rows
    return [
        row
        if row.problem
        else msgspec.structs.replace(row, speed_up=round(base.p50_ms / row.p50_ms, 3))
        for row in rows
    ]


def _quantile(ordered: Sequence[float], q: float) -> float:
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]

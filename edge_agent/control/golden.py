"""The golden check: does a candidate answer as the publisher measured it, on this hardware?

Every vector of the variant goes to the candidate through the runtime that would serve it. The
check is deterministic, so a failure is final for the release.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_agent.control.runtime_client import Runtime
from edge_agent.control.v2_binary import Tensor, numbers
from edge_agent.errors import AgentError
from fleet_protocol.manifest import Datatype, GoldenTensor, Manifest, Variant

_TIMED_CALLS = 3
"""Calls per vector when latency is judged; the fastest counts, because control runs at idle
priority and a call of its that waited for the processor says nothing about the model."""


class GoldenCheckError(AgentError):
    """The candidate does not answer as its publisher measured it; the message says how."""


@dataclass
class _Agreement:
    """How often the largest element was the golden one, for one labelled output."""

    same: int = 0
    rows: int = 0

    def count(
        self, shape: Sequence[int], expected: Sequence[float], actual: Sequence[float]
    ) -> None:
        """Compare the winners along the last dimension; a tie at the top is agreement."""
        width = max(shape[-1] if shape else 1, 1)
        for start in range(0, len(expected), width):
            row, answer = expected[start : start + width], actual[start : start + width]
            winner = max(range(len(row)), key=row.__getitem__)
            self.rows += 1
            self.same += answer[winner] >= max(answer)


def check(
    runtime: Runtime,
    manifest: Manifest,
    variant: Variant,
    *,
    timer: Callable[[], float] = time.perf_counter,
) -> None:
    """Accept a loaded candidate.

    Raises:
        GoldenCheckError: an answer lies outside the tolerance, or the calls take too long.
        RuntimeUnavailableError: the runtime died on the way.
        RuntimeRefusedError: the candidate failed on a golden input.
    """
    limit_ms = manifest.acceptance.max_p95_latency_ms
    tolerance = variant.golden.tolerance
    agreements = {spec.name: _Agreement() for spec in manifest.outputs if spec.labels}
    fastest_s: list[float] = []
    for at, vector in enumerate(variant.golden.vectors):
        times_s = []
        for _ in range(1 if limit_ms is None else _TIMED_CALLS):
            began_s = timer()
            answers = runtime.infer(
                manifest.family,
                manifest.version,
                vector.inputs,
                [spec.name for spec in manifest.outputs],
            )
            times_s.append(timer() - began_s)
        fastest_s.append(min(times_s))
        for golden in vector.outputs:
            where = f"golden vector {at}, output {golden.name!r}"
            answer = _answer(where, golden, answers)
            if golden.datatype is Datatype.BYTES:
                _check_same(where, golden, answer)
                continue
            expected = numbers(golden.datatype, golden.data())
            actual = numbers(answer.datatype, answer.data)
            _check_error(where, expected, actual, tolerance.max_abs_error)
            if golden.name in agreements:
                agreements[golden.name].count(golden.shape, expected, actual)
    _check_agreement(agreements, tolerance.top1_agreement)
    if limit_ms is not None:
        _check_latency(fastest_s, limit_ms)


def _answer(where: str, golden: GoldenTensor, answers: dict[str, Tensor]) -> Tensor:
    """Return the candidate's answer for an output, of the golden one's type, shape and length."""
    answer = answers.get(golden.name)
    if answer is None:
        raise GoldenCheckError(f"{where}: the candidate did not return it")
    if answer.datatype != golden.datatype or answer.shape != golden.shape:
        raise GoldenCheckError(
            f"{where}: the candidate returned {answer.datatype} {answer.shape}, "
            f"the publisher measured {golden.datatype} {golden.shape}"
        )
    if golden.datatype is not Datatype.BYTES and len(answer.data) != len(golden.data()):
        raise GoldenCheckError(f"{where}: the answer is cut short")
    return answer


def _check_same(where: str, golden: GoldenTensor, answer: Tensor) -> None:
    """Byte strings have no distance: they are the same or they are not."""
    if answer.data != golden.data():
        raise GoldenCheckError(f"{where}: the candidate returned other byte strings")


def _check_error(
    where: str, expected: Sequence[float], actual: Sequence[float], bound: float
) -> None:
    for golden, value in zip(expected, actual, strict=True):
        if golden == value or (math.isnan(golden) and math.isnan(value)):
            continue
        error = abs(golden - value)
        # Written so that a NaN, whose comparisons are all false, is refused.
        if not error <= bound:
            raise GoldenCheckError(
                f"{where}: the candidate is off by {error:.4g}, allowed is {bound:.4g}"
            )


def _check_agreement(agreements: dict[str, _Agreement], wanted: float) -> None:
    for name, agreement in agreements.items():
        if agreement.rows and agreement.same < wanted * agreement.rows:
            raise GoldenCheckError(
                f"output {name!r}: the candidate names the golden class in {agreement.same} of "
                f"{agreement.rows} cases, wanted are {wanted:.1%}"
            )


def _check_latency(fastest_s: Sequence[float], limit_ms: float) -> None:
    ordered = sorted(fastest_s)
    p95_ms = ordered[math.ceil(0.95 * len(ordered)) - 1] * 1000
    if p95_ms > limit_ms:
        raise GoldenCheckError(
            f"golden calls take {p95_ms:.2f} ms (p95) on this hardware, allowed are {limit_ms} ms"
        )

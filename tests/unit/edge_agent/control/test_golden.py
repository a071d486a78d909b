"""The golden check: what passes, what does not, and why."""

import base64
from array import array
from collections.abc import Sequence

import msgspec
import pytest

from edge_agent.control import golden
from edge_agent.control.golden import GoldenCheckError
from edge_agent.control.runtime_client import RuntimeRefusedError
from edge_agent.control.v2_binary import Tensor
from edge_agent.runtime_api import ActiveRelease, RuntimeStatus, ShadowOrder, ShadowReport
from fleet_protocol.manifest import (
    Acceptance,
    Datatype,
    Golden,
    GoldenTensor,
    GoldenVector,
    Manifest,
    TensorSpec,
    Tolerance,
)
from tests.simulators.device_releases import fp32, release


class Answers:
    """A `Runtime` of which only inference is asked: the answers of a test, in order."""

    def __init__(self, *answers: dict[str, Tensor]) -> None:
        self._answers = list(answers)
        self.calls = 0

    def infer(
        self,
        family: str,  # noqa: ARG002 (as in the protocol)
        version: str,  # noqa: ARG002 (the signature of the real one)
        inputs: Sequence[GoldenTensor],  # noqa: ARG002 (the signature of the real one)
        outputs: Sequence[str],  # noqa: ARG002 (the signature of the real one)
    ) -> dict[str, Tensor]:
        self.calls += 1
        if not self._answers:
            raise RuntimeRefusedError("the model failed", status=500)
        return self._answers.pop(0)

    def status(self) -> RuntimeStatus:
        raise NotImplementedError

    def load(self, release: ActiveRelease) -> None:
        raise NotImplementedError

    def activate(self, family: str, version: str) -> None:
        raise NotImplementedError

    def unload(self, family: str, version: str) -> None:
        raise NotImplementedError

    def stop_family(self, family: str) -> None:
        raise NotImplementedError

    def shadow(self, family: str, order: ShadowOrder) -> ShadowReport:
        raise NotImplementedError

    def race(
        self, family: str, versions: Sequence[str], inputs: Sequence[GoldenTensor]
    ) -> dict[str, float]:
        raise NotImplementedError


def y(values: Sequence[float], shape: Sequence[int] = (1, 3)) -> dict[str, Tensor]:
    return {"y": Tensor("y", Datatype.FP32, list(shape), array("f", values).tobytes())}


GOOD = (y([2.0, 4.0, 6.0]), y([6.0, 2.0, 4.0]))
"""What the golden vectors of a simulated release say."""


def check(*answers: dict[str, Tensor], manifest: Manifest | None = None) -> None:
    manifest = manifest or release().manifest
    golden.check(Answers(*answers), manifest, manifest.variants[0])


def with_tolerance(max_abs_error: float, top1_agreement: float) -> Manifest:
    manifest = release().manifest
    variant = manifest.variants[0]
    tolerance = Tolerance(max_abs_error=max_abs_error, top1_agreement=top1_agreement)
    changed = msgspec.structs.replace(
        variant, golden=Golden(vectors=variant.golden.vectors, tolerance=tolerance)
    )
    return msgspec.structs.replace(manifest, variants=[changed])


def test_the_publishers_answers_pass() -> None:
    check(*GOOD)


def test_answers_within_the_tolerance_pass() -> None:
    check(y([2.009, 4.0, 6.0]), y([6.0, 2.0, 3.995]))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (y([2.02, 4.0, 6.0]), "off by 0.02"),
        (y([float("nan"), 4.0, 6.0]), "off by nan"),
        (y([float("inf"), 4.0, 6.0]), "off by inf"),
        ({}, "did not return it"),
        (y([2.0, 4.0, 6.0], (3,)), r"returned FP32 \[3\]"),
        ({"y": Tensor("y", Datatype.INT32, [1, 3], bytes(12))}, "returned INT32"),
        ({"y": Tensor("y", Datatype.FP32, [1, 3], bytes(8))}, "cut short"),
    ],
)
def test_an_answer_that_is_not_the_publishers_is_refused(
    answer: dict[str, Tensor], reason: str
) -> None:
    with pytest.raises(GoldenCheckError, match=reason):
        check(answer, GOOD[1])


def test_another_winner_is_refused_even_within_a_wide_tolerance() -> None:
    with pytest.raises(GoldenCheckError, match="golden class in 1 of 2"):
        check(y([2.0, 6.0, 4.0]), GOOD[1], manifest=with_tolerance(10.0, 1.0))


def test_some_other_winners_pass_where_the_publisher_allows_them() -> None:
    check(y([2.0, 6.0, 4.0]), GOOD[1], manifest=with_tolerance(10.0, 0.5))


def test_a_tie_at_the_top_is_agreement() -> None:
    check(y([2.0, 6.0, 6.0]), GOOD[1], manifest=with_tolerance(10.0, 1.0))


def test_a_failing_candidate_is_the_runtimes_refusal() -> None:
    with pytest.raises(RuntimeRefusedError):
        check(GOOD[0])


def test_latency_is_the_p95_of_the_fastest_of_three_calls() -> None:
    ticks = iter([0.0, 0.9, 1.0, 1.005, 2.0, 2.9, 3.0, 3.9, 4.0, 4.9, 5.0, 5.006])
    manifest = release(acceptance=Acceptance(max_p95_latency_ms=7.0)).manifest
    runtime = Answers(*[GOOD[0]] * 3, *[GOOD[1]] * 3)
    golden.check(runtime, manifest, manifest.variants[0], timer=lambda: next(ticks))
    assert runtime.calls == 6


def test_a_slow_candidate_is_refused() -> None:
    ticks = iter([at * 0.01 for at in range(12)])
    manifest = release(acceptance=Acceptance(max_p95_latency_ms=7.0)).manifest
    runtime = Answers(*[GOOD[0]] * 3, *[GOOD[1]] * 3)
    with pytest.raises(GoldenCheckError, match=r"10\.00 ms"):
        golden.check(runtime, manifest, manifest.variants[0], timer=lambda: next(ticks))


@pytest.mark.parametrize(("answer", "passes"), [(b"\1\0\0\0a", True), (b"\1\0\0\0b", False)])
def test_byte_strings_are_the_same_or_refused(answer: bytes, *, passes: bool) -> None:
    base = release().manifest
    text = GoldenTensor(
        name="y",
        datatype=Datatype.BYTES,
        shape=[1],
        data_base64=base64.b64encode(b"\1\0\0\0a").decode(),
    )
    vector = GoldenVector(inputs=[fp32("x", [1, 2, 3], [1, 3])], outputs=[text])
    variant = msgspec.structs.replace(
        base.variants[0], golden=Golden(vectors=[vector], tolerance=Tolerance(max_abs_error=0))
    )
    spec = TensorSpec(name="y", datatype=Datatype.BYTES, shape=[-1])
    manifest = msgspec.structs.replace(base, variants=[variant], outputs=[spec])
    given = {"y": Tensor("y", Datatype.BYTES, [1], answer)}
    if passes:
        check(given, manifest=manifest)
    else:
        with pytest.raises(GoldenCheckError, match="other byte strings"):
            check(given, manifest=manifest)

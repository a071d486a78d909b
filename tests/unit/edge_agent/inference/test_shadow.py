"""Shadowing: what agrees, and that a live call neither waits for it nor hears of it."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import ConflictError, UnavailableError, UnknownModelError
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.shadow import agree
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ShadowOrder, ShadowReport
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release

ORDER = ShadowOrder(version="2.0.0", requests=3)


@pytest.fixture
def candidates() -> GatedBackend:
    """Loads the candidates; the release that serves comes of a backend without a gate."""
    made = GatedBackend()
    made.name = "candidates"
    return made


@pytest.fixture
async def plane(tmp_path: Path, candidates: GatedBackend) -> AsyncIterator[DataPlane]:
    state = StateDir(tmp_path)
    state.create()
    state.blob("0" * 64).touch()
    loader = ReleaseLoader(
        state=state,
        epoch="e1",
        catalog=Catalog([GatedBackend(), candidates]),
        clock=time.perf_counter,
    )
    made = DataPlane(loader=loader, clock=time.perf_counter, workers=2)
    await made.load(gated_release("1.0.0"))
    made.activate("m", "1.0.0")
    await made.load(msgspec.structs.replace(gated_release("2.0.0"), backend="candidates"))
    yield made
    candidates.let_pass()
    assert await made.close(10)


async def call(plane: DataPlane, value: float) -> float:
    data = struct.pack("<f", value)
    tensor = Tensor(name="x", datatype=Datatype.FP32, shape=[1], data=data)
    query = InferenceRequest(id="", inputs=[tensor], outputs=None, binary_output=False)
    live = plane.begin(plane.active("m"), started=time.perf_counter(), counted=True)
    with live:
        (output,) = await plane.run_in_thread(live, live.feed(query))
    (answer,) = struct.unpack("<f", output.data)
    return float(answer)


async def report(plane: DataPlane, compared: int) -> ShadowReport:
    """Wait until so many answers were compared."""
    deadline = time.monotonic() + 10
    while (found := plane.shadow("m", ORDER)).compared < compared:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    return found


async def test_live_requests_are_compared_until_there_were_enough(
    plane: DataPlane, candidates: GatedBackend
) -> None:
    assert plane.shadow("m", ORDER) == ShadowReport(compared=0, agreed=0)
    candidates.shut()
    candidates.let_pass()
    for compared in range(1, 4):
        assert await call(plane, compared) == 2 * compared
        assert await report(plane, compared) == ShadowReport(compared=compared, agreed=compared)
    await call(plane, 4)
    assert (await report(plane, 3)).compared == 3
    assert candidates.runs == [[1], [2], [3]]


async def test_a_candidate_that_never_answers_holds_no_live_call(
    plane: DataPlane, candidates: GatedBackend
) -> None:
    plane.shadow("m", ORDER)
    candidates.shut()
    for value in range(20):
        assert await call(plane, value) == 2 * value
    candidates.wait_for_runs(1)
    assert len(candidates.runs) == 1
    found = plane.shadow("m", ORDER)
    assert found.compared == 0
    assert found.running_s > 0
    with pytest.raises(UnavailableError, match="still run"):
        await plane.unload("m", "2.0.0", timeout_s=0.01)
    assert await call(plane, 1) == 2


async def test_a_candidate_that_fails_disagrees_and_the_caller_hears_nothing(
    plane: DataPlane, candidates: GatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.shadow("m", ORDER)

    def broken(_values: list[float]) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(candidates, "began", broken)
    assert await call(plane, 1) == 2
    assert await report(plane, 1) == ShadowReport(compared=1, agreed=0, problem="no room")


async def test_the_mirror_is_taken_away_with_the_switch(plane: DataPlane) -> None:
    live = plane.active("m")
    plane.shadow("m", ORDER)
    assert live.mirror is not None
    plane.activate("m", "2.0.0")
    assert live.mirror is None
    assert plane.active("m").mirror is None
    with pytest.raises(ConflictError, match="cannot shadow what serves"):
        plane.shadow("m", ORDER)


async def test_the_mirror_is_taken_away_with_the_candidate(plane: DataPlane) -> None:
    plane.shadow("m", ORDER)
    await plane.unload("m", "2.0.0")
    assert plane.active("m").mirror is None
    with pytest.raises(UnknownModelError):
        plane.shadow("m", ORDER)


async def test_calls_of_control_are_not_mirrored(plane: DataPlane) -> None:
    plane.shadow("m", ORDER)
    served = plane.active("m")
    control = plane.begin(served, started=time.perf_counter(), counted=False)
    with control:
        tensor = Tensor(name="x", datatype=Datatype.FP32, shape=[1], data=struct.pack("<f", 1))
        await plane.run_in_thread(control, [tensor])
    assert plane.shadow("m", ORDER).running_s == 0


async def test_releases_with_other_inputs_are_not_compared(plane: DataPlane) -> None:
    other = msgspec.structs.replace(
        gated_release("3.0.0"),
        inputs=[TensorSpec(name="z", datatype=Datatype.FP32, shape=[-1])],
    )
    await plane.load(other)
    with pytest.raises(ConflictError, match="has other inputs"):
        plane.shadow("m", ShadowOrder(version="3.0.0", requests=3))


def fp32(*values: float, shape: list[int] | None = None) -> Tensor:
    data = struct.pack(f"<{len(values)}f", *values)
    return Tensor(name="y", datatype=Datatype.FP32, shape=shape or [len(values)], data=data)


NAN = float("nan")


@pytest.mark.parametrize(
    ("live", "answer", "labels", "expected"),
    [
        (fp32(1, 2), fp32(1, 2.1), [], True),
        (fp32(1, 2), fp32(1, 2.2), [], False),
        (fp32(1, NAN), fp32(1, NAN), [], True),
        (fp32(1, 2), fp32(1, NAN), [], False),
        (fp32(1, 2), fp32(1, 2, 3), [], False),
        (fp32(1, 2, shape=[1, 2]), fp32(7, 9, shape=[1, 2]), ["a", "b"], True),
        (fp32(1, 2, shape=[1, 2]), fp32(2, 1, shape=[1, 2]), ["a", "b"], False),
        (fp32(1, 2, 3, 4, shape=[2, 2]), fp32(1, 2, 4, 3, shape=[2, 2]), ["a", "b"], False),
    ],
)
def test_what_agrees(live: Tensor, answer: Tensor, labels: list[str], *, expected: bool) -> None:
    spec = TensorSpec(name="y", datatype=Datatype.FP32, shape=[-1], labels=labels)
    assert agree(live, answer, spec, 0.15) is expected


def test_byte_strings_agree_if_they_are_the_same() -> None:
    spec = TensorSpec(name="y", datatype=Datatype.BYTES, shape=[1])
    one, other = (
        Tensor(name="y", datatype=Datatype.BYTES, shape=[1], data=data)
        for data in (b"\1\0\0\0a", b"\1\0\0\0b")
    )
    assert agree(one, one, spec, 9)
    assert not agree(one, other, spec, 9)

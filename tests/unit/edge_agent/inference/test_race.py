"""Releases timed in turns: fairly, without taking a model away, and only while there is time."""

import asyncio
import itertools
import struct
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import BackendError
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.race import Races
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.tensors import Tensor
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference.gated_backend import FAILS, GatedBackend, gated_release

A, B = "0.0.0-trial.0", "0.0.0-trial.1"


def request(value: float = 1.0) -> InferenceRequest:
    tensor = Tensor(name="x", datatype=Datatype.FP32, shape=[1], data=struct.pack("<f", value))
    return InferenceRequest(id="", inputs=[tensor], outputs=None, binary_output=True)


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend()


@pytest.fixture
async def plane(tmp_path: Path, backend: GatedBackend) -> AsyncIterator[DataPlane]:
    state = StateDir(tmp_path)
    state.create()
    state.blob("0" * 64).touch()
    clock = time.perf_counter
    made = DataPlane(
        loader=ReleaseLoader(state=state, epoch="e", catalog=Catalog([backend]), clock=clock),
        clock=clock,
        workers=1,
    )
    for version in (A, B):
        await made.load(gated_release(version))
    backend.runs.clear()
    yield made
    backend.let_pass()
    assert await made.close(10)


async def test_they_take_turns_and_the_shortest_run_counts(
    plane: DataPlane, backend: GatedBackend
) -> None:
    # Every look at the clock is later by one more: each run seems longer than the one before.
    looks = itertools.accumulate(itertools.count(0.0, 1e-6))
    races = Races(clock=lambda: next(looks), going=lambda: True)
    seconds = await races.run([plane.held("m", A), plane.held("m", B)], request())
    assert 0 < seconds[A] < seconds[B]
    per_release = len(backend.runs) // 2
    assert per_release > 20
    assert plane.held("m", A).statistics.executions == 0


async def test_a_model_stays_until_its_race_is_over_and_calls_go_on(
    plane: DataPlane, backend: GatedBackend
) -> None:
    backend.shut()
    going = threading.Event()
    races = Races(clock=time.perf_counter, going=going.is_set)
    racing = asyncio.ensure_future(races.run([plane.held("m", A), plane.held("m", B)], request()))
    await asyncio.to_thread(backend.wait_for_runs, 1)
    leaving = asyncio.ensure_future(plane.unload("m", A))
    racing.cancel()  # whoever asked has gone
    await asyncio.wait([racing])
    await plane.status()  # the loop turns
    assert not leaving.done()
    assert not any(model.closed for model in backend.models)
    backend.let_pass()
    assert await asyncio.wait_for(leaving, 30) == 1
    # Nobody wanted more than the turn that was under way.
    assert len(backend.runs) <= 6


async def test_a_model_that_fails_ends_the_race(plane: DataPlane) -> None:
    races = Races(clock=time.perf_counter, going=lambda: True)
    with pytest.raises(BackendError):
        await races.run([plane.held("m", A)], request(FAILS))
    assert await plane.unload("m", A) == 1

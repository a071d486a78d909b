"""Calls that run together: who joins whom, and what is never joined."""

import asyncio
import time

import pytest

from edge_agent.inference.errors import BackendError
from edge_agent.inference.model_configuration import configuration, placement
from tests.unit.edge_agent.inference.gated_backend import FAILS, SUMS, GatedBackend
from tests.unit.edge_agent.inference.scheduler.calls import (
    MakePlane,
    blocked,
    infer,
    request,
    serve,
    start,
)


async def test_who_waits_is_joined_to_batches_and_gets_its_own_rows(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane(max_batch=4)
    served = await serve(plane)
    await blocked(plane, backend, served)
    tasks = [await start(plane, served, *items) for items in ([1.0], [2.0, 3.0], [4.0], [5.0])]
    backend.let_pass()
    assert [await task for task in tasks] == [[2.0], [4.0, 6.0], [8.0], [10.0]]
    assert backend.runs == [[100.0], [1.0, 2.0, 3.0, 4.0], [5.0]]
    found = served.statistics.snapshot(name="m", version="1", now=time.perf_counter())
    assert (found.inference_count, found.execution_count) == (6, 3)
    assert {batch.batch_size: batch.compute_infer.count for batch in found.batch_stats} == {
        1: 2,
        4: 1,
    }
    assert found.inference_stats.success.count == found.inference_stats.queue.count == 5
    assert found.inference_stats.queue.ns > 0


async def test_in_a_batch_only_the_guilty_call_fails(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane(max_batch=8)
    served = await serve(plane)
    await blocked(plane, backend, served)
    tasks = [await start(plane, served, item) for item in (FAILS, 2.0, 3.0)]
    backend.let_pass()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], BackendError)
    assert found[1:] == [[4.0], [6.0]]
    # Each ran for itself in the end, and is counted and timed so.
    stats = served.statistics.snapshot(name="m", version="1", now=time.perf_counter())
    assert (stats.inference_count, stats.execution_count) == (3, 3)
    assert [batch.batch_size for batch in stats.batch_stats] == [1]


async def test_a_batch_is_counted_even_if_its_first_caller_has_gone(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane(max_batch=3, batch_wait_s=20.0)
    served = await serve(plane)
    backend.shut()
    gone, *others = [await start(plane, served, item) for item in (1.0, 2.0, 3.0)]
    await asyncio.to_thread(backend.wait_for_runs, 1)
    gone.cancel()
    await asyncio.sleep(0)
    backend.let_pass()
    assert await asyncio.gather(*others) == [[4.0], [6.0]]
    stats = served.statistics.snapshot(name="m", version="1", now=time.perf_counter())
    counts = [(batch.batch_size, batch.compute_infer.count) for batch in stats.batch_stats]
    assert counts == [(3, 1)]


async def test_a_model_whose_outputs_are_no_rows_is_not_batched_again(
    make_plane: MakePlane, backend: GatedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make_plane(max_batch=8, batch_wait_s=0.001)
    served = await serve(plane)
    await blocked(plane, backend, served)
    tasks = [await start(plane, served, item) for item in (SUMS, 2.0, 3.0)]
    backend.let_pass()
    assert await asyncio.gather(*tasks) == [[2 * SUMS], [4.0], [6.0]]
    assert backend.runs == [[100.0], [SUMS, 2.0, 3.0], [SUMS], [2.0], [3.0]]
    await blocked(plane, backend, served)
    tasks = [await start(plane, served, item) for item in (SUMS, 2.0)]
    backend.let_pass()
    await asyncio.gather(*tasks)
    assert backend.runs == [[100.0], [SUMS], [2.0]]
    assert [record.message for record in caplog.records].count("batching_ended") == 1
    assert served.scheduler.limits.max_batch == 1
    assert placement(served)["batching"].startswith("off: output 'y' has the shape [1] for a batch")


async def test_a_batch_waits_for_others_if_it_may(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane(max_batch=2, batch_wait_s=20.0)
    served = await serve(plane)
    backend.shut()
    backend.let_pass()
    assert not served.scheduler.vacant
    first = await start(plane, served, 1.0)
    assert (served.scheduler.depth, backend.runs) == (1, [])
    second = await start(plane, served, 2.0)
    assert [await first, await second] == [[2.0], [4.0]]
    # The slack of a deadline ends the wait long before the 20 s are over.
    assert await infer(plane, served, request(3.0, timeout_us=600_000)) == [6.0]
    assert backend.runs == [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize("backend", [False], ids=["whole"], indirect=True)
async def test_a_model_is_tried_only_where_batches_are_wanted(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    await serve(make_plane())
    alone = len(backend.runs)
    backend.runs.clear()
    served = await serve(make_plane(max_batch=4))
    assert [len(values) for values in backend.runs[alone:]] == [1, 1, 2]
    assert served.scheduler.limits.max_batch == 4
    assert "batching" not in placement(served)


@pytest.mark.parametrize("backend", [False], ids=["whole"], indirect=True)
async def test_a_model_whose_first_dimension_is_no_batch_answers_each_call_alone(
    make_plane: MakePlane,
    backend: GatedBackend,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend.mixes = True
    plane = make_plane(max_batch=4, batch_wait_s=20.0)
    served = await serve(plane)
    (logged,) = [record for record in caplog.records if record.message == "batching_off"]
    assert "is in a batch with" in str(vars(logged)["reason"])
    assert placement(served)["batching"].startswith("off: output 'y'")
    assert configuration(served, max_request_bytes=100).dynamic_batching is None
    assert await asyncio.wait_for(infer(plane, served, request(3.0)), 10) == [6.0]

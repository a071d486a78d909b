"""The scheduler on a real loop with real threads: who runs, with whom, and who is turned away."""

import asyncio
import itertools
import struct
import threading
import time

import pytest

from edge_agent import counters
from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import DeadlineError, RefusedError
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.state_dir import StateDir
from fleet_protocol.messages import ErrorKind
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release
from tests.unit.edge_agent.inference.scheduler.calls import (
    MakePlane,
    blocked,
    infer,
    request,
    serve,
    start,
)


async def test_waiting_calls_run_by_priority_and_deadline(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane()
    served = await serve(plane)
    await blocked(plane, backend, served)
    tasks = [
        await start(plane, served, 1.0),
        await start(plane, served, 2.0, timeout_us=50_000_000),
        await start(plane, served, 3.0, timeout_us=20_000_000),
        await start(plane, served, 4.0, priority=1),
        await start(plane, served, 5.0, priority=200, timeout_us=1_000_000_000),
    ]
    assert (served.scheduler.depth, served.scheduler.running) == (5, 1)
    assert not served.scheduler.vacant
    backend.let_pass()
    assert [await task for task in tasks] == [[2.0], [4.0], [6.0], [8.0], [10.0]]
    assert backend.runs == [[100.0], [4.0], [3.0], [2.0], [1.0], [5.0]]
    assert served.scheduler.vacant


async def test_a_full_queue_refuses_at_once(
    make_plane: MakePlane, backend: GatedBackend, state: StateDir
) -> None:
    plane = make_plane(max_queue=2)
    served = await serve(plane)
    await blocked(plane, backend, served)
    waiting = [await start(plane, served, 1.0) for _ in range(2)]
    with pytest.raises(RefusedError, match=r"m 1\.0\.0 has 2 calls waiting") as refusal:
        await infer(plane, served, request(2.0))
    assert refusal.value.retry_after_s is not None
    backend.let_pass()
    await asyncio.gather(*waiting)
    counted = counters.read(state.run / "counters-e1-1.bin")
    assert counted.errors[ErrorKind.REFUSED] == 1
    assert served.statistics.errors[ErrorKind.REFUSED] == 1


async def test_a_call_whose_timeout_runs_out_in_the_queue_is_answered_then_and_never_run(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane()
    served = await serve(plane)
    await blocked(plane, backend, served)
    other = await start(plane, served, 1.0)
    with pytest.raises(DeadlineError, match=r"timeout ran out after .* in the queue"):
        await asyncio.wait_for(infer(plane, served, request(7.0, timeout_us=100_000)), 10)
    backend.let_pass()
    await other
    assert [7.0] not in backend.runs


async def test_a_call_that_would_come_too_late_is_refused_on_arrival(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane()
    served = await serve(plane)
    served.scheduler.run_times.observe(1, 50.0)
    with pytest.raises(DeadlineError, match="would answer in about"):
        await infer(plane, served, request(1.0, timeout_us=1000))
    call = plane.begin(served, started=time.perf_counter(), counted=True)
    with pytest.raises(DeadlineError, match="would answer in about"), call:
        call.runs_inline(call.feed(request(1.0, timeout_us=1000)))
    assert await infer(plane, served, request(1.0)) == [2.0]
    assert served.in_flight == 0
    assert backend.runs.count([1.0]) == 1


async def test_a_model_that_takes_longer_than_its_warm_up_leaves_the_loop(
    make_plane: MakePlane,
) -> None:
    plane = make_plane()
    served = await serve(plane)

    def inline() -> bool:
        call = plane.begin(served, started=time.perf_counter(), counted=True)
        with call:
            return call.runs_inline(call.feed(request(1.0)))

    assert inline()
    served.scheduler.run_times.observe(1, 0.05)
    assert not inline()
    for _ in range(40):
        served.scheduler.run_times.observe(1, 0.0001)
    assert inline()


async def test_the_first_call_is_judged_by_the_warm_up(
    state: StateDir, backend: GatedBackend
) -> None:
    every_look_a_second_later = itertools.count().__next__
    plane = DataPlane(
        loader=ReleaseLoader(
            state=state,
            epoch="e1",
            catalog=Catalog([backend]),
            clock=lambda: float(every_look_a_second_later()),
        ),
        clock=time.perf_counter,
        workers=1,
    )
    served = await serve(plane)
    with pytest.raises(DeadlineError, match=r"would answer in about 1000\.0 ms"):
        await infer(plane, served, request(1.0, timeout_us=500_000))
    assert await infer(plane, served, request(1.0)) == [2.0]
    # From now on the measurement counts.
    assert await infer(plane, served, request(1.0, timeout_us=500_000)) == [2.0]
    assert await plane.close(10)


@pytest.mark.parametrize("backend", [True], ids=["staged"], indirect=True)
async def test_the_thread_only_computes_and_the_loop_does_the_rest(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane()
    served = await serve(plane)
    backend.steps.clear()
    await blocked(plane, backend, served)
    waiting = [await start(plane, served, 2.0), await start(plane, served, 3.0)]
    backend.let_pass()
    assert [await call for call in waiting] == [[4.0], [6.0]]
    loop, thread = threading.current_thread().name, "infer_0"
    where = {"prepared": loop, "computed": thread, "finished": loop}
    assert {*backend.steps} == {*where.items()}
    assert len(backend.steps) == 3 * len(where)  # no call is prepared twice


async def test_a_caller_that_goes_takes_no_turn_and_harms_nobody(
    make_plane: MakePlane, backend: GatedBackend, state: StateDir
) -> None:
    plane = make_plane()
    served = await serve(plane)
    await plane.load(gated_release("2.0.0"))
    backend.shut()
    running = await start(plane, served, 1.0)
    await asyncio.to_thread(backend.wait_for_runs, 1)
    waiting, other = await start(plane, served, 2.0), await start(plane, served, 3.0)
    for task in (running, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    plane.activate("m", "2.0.0")
    unload = asyncio.create_task(plane.unload("m", "1.0.0"))
    await asyncio.sleep(0)
    assert not backend.models[0].closed
    backend.let_pass()
    assert await other == [6.0]
    assert await unload == 1
    assert backend.models[0].closed
    assert backend.runs[:2] == [[1.0], [3.0]]
    counted = counters.read(state.run / "counters-e1-1.bin")
    assert (counted.requests, sum(counted.errors.values())) == (1, 0)


async def test_a_thread_goes_on_with_the_most_urgent_call_while_the_loop_is_busy(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane()
    served = await serve(plane)
    await blocked(plane, backend, served)
    tasks = [await start(plane, served, 1.0), await start(plane, served, 2.0, priority=1)]
    backend.let_pass()
    backend.wait_for_runs(2)  # without giving the loop a turn
    assert backend.runs == [[100.0], [2.0]]
    await asyncio.gather(*tasks)
    assert backend.runs == [[100.0], [2.0], [1.0]]
    assert (served.scheduler.depth, served.scheduler.running) == (0, 0)


async def test_a_free_thread_goes_to_the_most_urgent_call_of_all_models(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane()
    one, two = await serve(plane, family="one"), await serve(plane, family="two")
    await blocked(plane, backend, one)
    tasks = [
        await start(plane, one, 1.0),
        await start(plane, two, 2.0, priority=1),
        await start(plane, one, 3.0, priority=2),
        await start(plane, two, 4.0),
    ]
    backend.let_pass()
    await asyncio.gather(*tasks)
    assert backend.runs[:3] == [[100.0], [2.0], [3.0]]
    assert sorted(backend.runs[3:]) == [[1.0], [4.0]]


async def test_a_model_has_at_most_its_instances(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane(workers=3, instances=2)
    one, two = await serve(plane, family="one"), await serve(plane, family="two")
    backend.shut()
    tasks = [await start(plane, one, item) for item in (1.0, 2.0, 3.0)]
    await asyncio.to_thread(backend.wait_for_runs, 2)
    assert (one.scheduler.running, one.scheduler.depth) == (2, 1)
    tasks.append(await start(plane, two, 4.0))
    await asyncio.to_thread(backend.wait_for_runs, 3)
    assert sorted(backend.runs) == [[1.0], [2.0], [4.0]]
    backend.let_pass()
    await asyncio.gather(*tasks)


async def test_a_model_that_runs_one_call_at_a_time_is_loaded_again_for_more(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    backend.max_concurrent_runs = 1
    served = await serve(make_plane(workers=3))
    assert (len(backend.models), served.scheduler.limits.instances) == (1, 1)
    plane = make_plane(workers=3, instances=2, wanted_instances=2)
    served = await serve(plane)
    assert (len(backend.models), served.scheduler.limits.instances) == (3, 2)
    backend.shut()
    tasks = [await start(plane, served, item) for item in (1.0, 2.0, 3.0)]
    await asyncio.to_thread(backend.wait_for_runs, 2)
    assert (served.scheduler.running, served.scheduler.depth) == (2, 1)
    backend.let_pass()
    assert await asyncio.gather(*tasks) == [[2.0], [4.0], [6.0]]
    await plane.unload_family("m")
    assert [model.closed for model in backend.models] == [False, True, True]


async def test_swaps_under_load_drop_nothing(make_plane: MakePlane, backend: GatedBackend) -> None:
    """10,000 calls, a quarter of them inline, while releases come and go underneath."""
    plane = make_plane(workers=2, max_batch=8, max_queue=64)
    await serve(plane, "0.0.1")
    remaining = 10_000
    answered = 0

    async def client(number: int) -> None:
        nonlocal remaining, answered
        while remaining:
            remaining -= 1
            served = plane.active("m")
            if remaining % 4:
                found = await infer(plane, served, request(float(number)))
            else:
                call = plane.begin(served, started=time.perf_counter(), counted=True)
                with call:
                    (output,) = call.run(call.feed(request(float(number))))
                found = list(struct.unpack("<f", output.data))
                await asyncio.sleep(0)
            assert found == [number * 2.0]
            answered += 1

    clients = [asyncio.create_task(client(number)) for number in range(16)]
    swaps = 1
    while remaining:
        swaps += 1
        old = plane.active("m").release.version
        await serve(plane, f"0.0.{swaps}")
        assert await plane.unload("m", old) == 1
    await asyncio.gather(*clients)
    assert (answered, remaining) == (10_000, 0)
    assert swaps > 10
    assert [model.closed for model in backend.models] == [True] * (swaps - 1) + [False]

"""Active models that leave memory for others and come back with their next call."""

import asyncio
import time
from pathlib import Path

import pytest

from edge_agent import counters
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import (
    AsleepError,
    ConflictError,
    LoadError,
    UnavailableError,
    UnknownModelError,
)
from edge_agent.inference.execution_policy import ExecutionPolicy
from edge_agent.inference.grpc_api.descriptions import Descriptions
from edge_agent.inference.grpc_api.wire.open_inference_pb2 import (
    ModelMetadataRequest,
    ModelReadyRequest,
)
from edge_agent.inference.http_messages import HttpResponse
from edge_agent.inference.memory_budget import MemoryPolicy
from edge_agent.inference.metrics import MetricsRoute
from edge_agent.inference.repository_routes import repository_index
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.gated_backend import GatedBackend
from tests.unit.edge_agent.inference.route_calls import ask, infer, scrape
from tests.unit.edge_agent.inference.sized_releases import MIB, MakePlane, loader, serve, sized


async def test_an_idle_model_sleeps_and_its_next_call_wakes_it(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 60))
    await serve(plane, sized("b", 30))
    plane.begin(plane.active("a"), started=time.perf_counter(), counted=False).__exit__(
        None, None, None
    )
    await serve(plane, sized("c", 40))
    status = await plane.status()
    assert status.asleep == ["b"]
    assert {release.family for release in status.releases if release.active} == {"a", "b", "c"}
    assert [model.closed for model in backend.models] == [False, True, False]
    assert plane.ready
    # Control may go on as if it were there.
    assert plane.activate("b", "1.0.0").active
    with pytest.raises(ConflictError, match=r"b 1\.0\.0 is active"):
        await plane.unload("b", "1.0.0")
    with pytest.raises(AsleepError) as asleep:
        plane.active("b")
    assert asleep.value.retry_after_s == 1.0
    await asyncio.gather(plane.awake("b"), plane.awake("b"))
    assert plane.active("b").release.family == "b"
    assert len(backend.models) == 4
    assert (await plane.status()).asleep == ["a"]
    await plane.awake("b")
    assert await plane.unload_family("a") == 0
    with pytest.raises(UnknownModelError):
        plane.active("a")


async def test_nobody_leaves_for_a_release_that_is_refused(
    state: StateDir, backend: GatedBackend
) -> None:
    plane = DataPlane(
        loader=loader(state, backend, refused="b"),
        clock=time.perf_counter,
        workers=1,
        policy=ExecutionPolicy(
            limits=lambda _: QueueLimits(),
            memory=MemoryPolicy(budget_bytes=100 * MIB, evict_idle=True),
        ),
    )
    await serve(plane, sized("a", 60))
    with pytest.raises(LoadError, match="it has crashed us"):
        await plane.load(sized("b", 50))
    assert (await plane.status()).asleep == []
    assert await plane.close(10)


async def test_a_model_that_wakes_goes_on_counting(make_plane: MakePlane, state: StateDir) -> None:
    plane = make_plane(evict_idle=True)
    for family in ("a", "b"):
        await serve(plane, sized(family, 60))
    for _ in range(3):
        for family in ("a", "b"):
            await plane.awake(family)
            plane.active(family).counters.answered(7.0)
    files = [counters.read(path) for path in sorted(state.run.glob("counters-*"))]
    assert [(each.label.family, each.requests, each.closed) for each in files] == [
        ("a", 3, False),
        ("b", 3, False),
    ]
    # The one that sleeps is final once it is served no more, or by another version.
    await plane.unload_family("a")
    await plane.load(sized("b", 40, "2.0.0"))
    plane.activate("b", "2.0.0")
    await plane.unload("b", "1.0.0")
    assert all(counters.read(path).closed for path in sorted(state.run.glob("counters-*"))[:2])


async def test_what_describes_a_sleeping_model_leaves_it_asleep(make_plane: MakePlane) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 60))
    await serve(plane, sized("b", 50))
    for what in ("", "/ready", "/config", "/stats", "/versions/1.0.0", "/versions/1.0.0/ready"):
        assert ask(plane, "GET", f"/v2/models/a{what}").status == 200
    assert ask(plane, "GET", "/v2/models/a/versions/2.0.0").status == 404
    for method, path in (("GET", "/v2/models/stats"), ("POST", "/v2/repository/index")):
        body = ask(plane, method, path).parts[0]
        assert b'"name":"a"' in bytes(body)
        assert b'"name":"b"' in bytes(body)
    metadata = ask(plane, "GET", "/v2/models/a", admin=Path("active.json")).parts[0]
    assert b'"versions":["1.0.0"]' in bytes(metadata)
    assert b"serves: a, b" in bytes(ask(plane, "GET", "/v2/models/c").parts[0])
    (usage,) = plane.statistics(plane.described("b")).memory_usage
    assert usage.byte_size == 50 * MIB
    assert not plane.statistics(plane.described("a")).memory_usage
    describe = Descriptions(plane, max_request_bytes=1024, shared_memory=False)
    assert describe.model_ready(ModelReadyRequest(name="a")).ready
    assert describe.model(ModelMetadataRequest(name="a")).versions == ["1.0.0"]
    assert (await plane.status()).asleep == ["a"]


async def test_waiting_to_be_loaded_is_queueing_and_the_metrics_tell_who_sleeps(
    make_plane: MakePlane,
) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 60))
    await serve(plane, sized("b", 50))
    assert await asleep_by_metrics(plane) == {"a": 1, "b": 0}
    waited_s = 1000.0
    assert (await infer(plane, "a", received_at=time.perf_counter() - waited_s)).status == 200
    stats = plane.statistics(plane.active("a")).inference_stats
    assert stats.queue.ns >= waited_s * 1e9
    assert stats.compute_input.ns < 1e9
    assert stats.success.ns >= stats.queue.ns
    assert await asleep_by_metrics(plane) == {"a": 0, "b": 1}


async def asleep_by_metrics(plane: DataPlane) -> dict[str, int]:
    """Return of each family whether ``/metrics`` says that it sleeps."""
    samples = await scrape(MetricsRoute(plane, lambda _: HttpResponse(), clock=time.perf_counter))
    return {
        sample.labels["family"]: int(sample.value)
        for sample in samples
        if sample.name == "skerry_model_asleep"
    }


async def test_what_control_decides_while_models_leave_stays_so(make_plane: MakePlane) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 40))
    await serve(plane, sized("b", 30))
    await plane.load(sized("b", 10, "2.0.0"))
    staying = plane.active("a")
    staying.run_began()  # so that it takes its time to leave
    loading = asyncio.create_task(plane.load(sized("c", 80)))
    while not (await plane.status()).asleep:  # noqa: ASYNC110 (a state, of which nobody tells)
        await asyncio.sleep(0)
    assert plane.activate("b", "2.0.0").active
    staying.run_ended()
    await loading
    assert plane.active("b").release.version == "2.0.0"
    assert (await plane.status()).asleep == ["a"]


async def test_a_family_that_is_stopped_while_it_wakes_is_gone(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 60))
    await serve(plane, sized("b", 50))
    waking = asyncio.create_task(plane.awake("a"))
    await asyncio.sleep(0)
    await plane.unload_family("a")
    await waking
    status = await plane.status()
    assert [(release.family, release.active) for release in status.releases] == [("b", True)]
    assert all(model.closed for model in backend.models)


async def test_a_model_that_cannot_be_woken_is_not_ready(
    make_plane: MakePlane, state: StateDir
) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 60))
    await serve(plane, sized("b", 50))
    describe = Descriptions(plane, max_request_bytes=1024, shared_memory=False)
    ready = ModelReadyRequest(name="a")
    state.blob("0" * 64).unlink()
    with pytest.raises(UnavailableError, match="not among the blobs"):
        await plane.awake("a")
    assert not plane.ready
    assert ask(plane, "GET", "/v2/health/ready").status == 503
    assert b"not among the blobs" in bytes(ask(plane, "GET", "/v2/models/a/ready").parts[0])
    assert not describe.model_ready(ready).ready
    index = {
        entry.name: entry for entry in repository_index(plane, ready_only=False, every_version=True)
    }
    assert [(name, index[name].state) for name in index] == [("b", "READY"), ("a", "UNAVAILABLE")]
    assert "not among the blobs" in (await plane.status()).failed["a"]
    # What describes it is there as before, and the next call tries again.
    assert ask(plane, "GET", "/v2/models/a").status == 200
    state.blob("0" * 64).touch()
    await plane.awake("a")
    assert plane.ready
    assert describe.model_ready(ready).ready


async def test_a_model_in_use_does_not_leave(make_plane: MakePlane) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 60))
    with plane.begin(plane.active("a"), started=time.perf_counter(), counted=False):
        with pytest.raises(LoadError, match=r"a 1\.0\.0"):
            await plane.load(sized("b", 50))
        # Nor does the old version for the new one of its family.
        with pytest.raises(LoadError):
            await plane.load(sized("a", 60, "2.0.0"))
    await serve(plane, sized("b", 50))
    # Now "a" sleeps and "b" is in use: "a" cannot wake, and says why. The next moment it could.
    with plane.begin(plane.active("b"), started=time.perf_counter(), counted=False):
        with pytest.raises(AsleepError, match=r"could not be loaded again.*b 1\.0\.0"):
            await plane.awake("a")
        refused = await infer(plane, "a")
    assert (refused.status, refused.extra_headers) == (503, "Retry-After: 1\r\n")
    assert plane.ready
    await plane.awake("a")
    assert plane.active("a").release.version == "1.0.0"


async def test_a_new_version_replaces_a_sleeping_one(make_plane: MakePlane) -> None:
    plane = make_plane(evict_idle=True)
    await serve(plane, sized("a", 60))
    await serve(plane, sized("b", 50))
    await plane.load(sized("a", 40, "2.0.0"))
    assert (await plane.status()).asleep == ["a"]
    assert plane.activate("a", "2.0.0").active
    assert await plane.unload("a", "1.0.0") == 0
    assert plane.active("a").release.version == "2.0.0"
    assert (await plane.status()).asleep == []

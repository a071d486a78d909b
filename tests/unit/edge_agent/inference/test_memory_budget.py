"""Memory admission: who fits, who must leave, and what sleeping means for callers."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import LoadError, NoRoomError
from edge_agent.inference.execution_policy import ExecutionPolicy, policy_from
from edge_agent.inference.memory_budget import Holding, MemoryPolicy, Need, need_of, room_for
from edge_agent.inference.process_memory import default_budget_bytes
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.settings import ModelSettings, RuntimeSettings
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release
from tests.unit.edge_agent.inference.sized_releases import MIB, MakePlane, loader, serve, sized

GIB = 1024 * MIB


def holding(family: str, mib: int, used_at: float = 0.0, *, may_leave: bool = False) -> Holding:
    return Holding(
        family=family,
        version="1.0.0",
        memory_bytes=mib * MIB,
        used_at=used_at,
        may_leave=may_leave,
    )


def need(mib: int) -> Need:
    return Need(first_bytes=mib * MIB)


BUSY, RECENT, OLD = (
    holding("busy", 40, 1.0),
    holding("recent", 30, 3.0, may_leave=True),
    holding("old", 20, 2.0, may_leave=True),
)


@pytest.mark.parametrize(
    ("needed_mib", "held", "leaving"),
    [
        (100, [], []),
        (10, [BUSY, RECENT, OLD], []),
        (11, [BUSY, RECENT, OLD], [OLD]),
        (30, [BUSY, RECENT, OLD], [OLD]),
        (31, [BUSY, RECENT, OLD], [OLD, RECENT]),
        (60, [BUSY, RECENT, OLD], [OLD, RECENT]),
    ],
)
def test_the_least_recently_used_leave_and_no_more_than_needed(
    needed_mib: int, held: Sequence[Holding], leaving: Sequence[Holding]
) -> None:
    assert room_for("m", need(needed_mib), held, budget_bytes=100 * MIB) == leaving


@pytest.mark.parametrize(
    ("needed_mib", "soon"),
    [
        # 40 are taken by one in use, 20 by one on trial, 30 by an idle one that may go.
        (81, False),
        (80, True),
        (41, True),
    ],
)
def test_who_finds_no_room_learns_whether_those_in_use_would_make_it(
    needed_mib: int, *, soon: bool
) -> None:
    held = [replace(BUSY, leaves_soon=True), replace(RECENT, leaves_soon=True), holding("new", 20)]
    with pytest.raises(NoRoomError) as refused:
        room_for("big 1.0.0", need(needed_mib), held, budget_bytes=100 * MIB)
    assert (refused.value.retry_after_s is not None) is soon


def test_a_model_that_does_not_fit_is_refused_with_the_figures() -> None:
    with pytest.raises(LoadError) as refusal:
        room_for("m 2.0.0", need(61), [BUSY, RECENT, OLD], budget_bytes=100 * MIB)
    assert str(refusal.value) == (
        "m 2.0.0 does not fit into memory: it needs about 61.0 MiB, the budget for all models is "
        "100.0 MiB (setting runtime.memory_budget_bytes), and 40.0 MiB stay taken by: "
        "busy 1.0.0 40.0 MiB"
    )
    with pytest.raises(LoadError, match="and nothing else is loaded"):
        room_for("m 2.0.0", need(101), [], budget_bytes=100 * MIB)


def test_further_instances_are_charged_and_named() -> None:
    wanted = need_of(measured_bytes=40 * MIB, file_bytes=10 * MIB, instances=3)
    assert wanted.total_bytes == 100 * MIB
    assert room_for("m 2.0.0", wanted, [], budget_bytes=100 * MIB) == []
    with pytest.raises(LoadError) as refusal:
        room_for("m 2.0.0", wanted, [BUSY], budget_bytes=100 * MIB)
    assert (
        "it needs about 100.0 MiB (3 instances, the first 40.0 MiB, each further one 30.0 MiB; "
        "setting runtime.instances), the budget"
    ) in str(refusal.value)
    judged = need_of(measured_bytes=0, file_bytes=10 * MIB, instances=2)
    assert (judged.first_bytes, judged.further_bytes) == (24 * MIB, 14 * MIB)


holdings = st.lists(
    st.builds(
        holding,
        st.sampled_from("abcdef"),
        st.integers(0, 50),
        st.floats(0, 10),
        may_leave=st.booleans(),
    ),
    max_size=6,
)


@given(st.integers(0, 200), holdings)
def test_what_is_admitted_fits(needed_mib: int, held: list[Holding]) -> None:
    taken = sum(each.memory_bytes for each in held)
    try:
        leaving = room_for("m", need(needed_mib), held, budget_bytes=100 * MIB)
    except LoadError:
        fixed = sum(each.memory_bytes for each in held if not each.may_leave)
        assert fixed + needed_mib * MIB > 100 * MIB
        return
    assert all(each.may_leave for each in leaving)
    freed = sum(each.memory_bytes for each in leaving)
    assert taken - freed + needed_mib * MIB <= 100 * MIB


def test_the_default_budget_knows_machine_and_control_group(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (cgroup / "app").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8388608 kB\n")
    (proc / "self/cgroup").write_text("0::/app\n")
    assert default_budget_bytes(proc, cgroup) == 6 * GIB
    (cgroup / "app/memory.max").write_text("max\n")
    (cgroup / "app/memory.current").write_text(f"{GIB}\n")
    assert default_budget_bytes(proc, cgroup) == 6 * GIB
    (cgroup / "app/memory.max").write_text(f"{3 * GIB}\n")
    assert default_budget_bytes(proc, cgroup) == 1.5 * GIB


def test_a_family_has_its_own_settings_and_the_common_ones() -> None:
    settings = RuntimeSettings(
        instances=1,
        max_queue=9,
        memory_budget_bytes=5 * MIB,
        response_cache_bytes=MIB,
        models={"m": ModelSettings(max_batch=8, batch_wait_us=500, instances=0)},
    )
    policy = policy_from(settings, workers=4)
    assert policy.limits(gated_release()) == QueueLimits(
        max_queue=9, instances=4, wanted_instances=1, max_batch=8, batch_wait_s=0.0005
    )
    assert policy.limits(gated_release(family="n")) == QueueLimits(max_queue=9, instances=1)
    assert policy.memory == MemoryPolicy(budget_bytes=5 * MIB, evict_idle=False)
    assert policy.cache is not None
    assert policy_from(RuntimeSettings(), workers=4).cache is None


async def test_without_leave_to_evict_a_model_that_does_not_fit_is_refused(
    make_plane: MakePlane, backend: GatedBackend
) -> None:
    plane = make_plane()
    await serve(plane, sized("a", 60))
    with pytest.raises(LoadError, match=r"needs about 50\.0 MiB.*a 1\.0\.0 60\.0 MiB"):
        await plane.load(sized("b", 50))
    assert len(backend.models) == 1
    assert plane.active("a").release.family == "a"
    await serve(plane, sized("c", 40))
    status = await plane.status()
    assert status.memory_budget_bytes == 100 * MIB
    assert status.model_memory_bytes == {"a 1.0.0": 60 * MIB, "c 1.0.0": 40 * MIB}


async def test_every_instance_is_charged(state: StateDir, backend: GatedBackend) -> None:
    backend.max_concurrent_runs = 1
    plane = DataPlane(
        loader=loader(state, backend),
        clock=time.perf_counter,
        workers=3,
        policy=ExecutionPolicy(
            limits=lambda _: QueueLimits(instances=3, wanted_instances=3),
            memory=MemoryPolicy(budget_bytes=100 * MIB),
        ),
    )
    with pytest.raises(LoadError, match=r"about 120\.0 MiB \(3 instances, the first 40\.0 MiB"):
        await plane.load(sized("a", 40))
    assert not backend.models
    await plane.load(sized("a", 30))
    assert len(backend.models) == 3
    assert (await plane.status()).model_memory_bytes == {"a 1.0.0": 90 * MIB}
    assert await plane.close(10)

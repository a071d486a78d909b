"""What tests of memory and sleep share: planes with a budget, on gated models without files."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.execution_policy import ExecutionPolicy
from edge_agent.inference.memory_budget import MemoryPolicy
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.gated_backend import GatedBackend
from tests.unit.edge_agent.inference.sized_releases import MIB, MakePlane, loader


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path)
    made.create()
    made.blob("0" * 64).touch()
    return made


@pytest.fixture
async def make_plane(state: StateDir, backend: GatedBackend) -> AsyncIterator[MakePlane]:
    made: list[DataPlane] = []

    def make(**policy: object) -> DataPlane:
        memory = replace(MemoryPolicy(budget_bytes=100 * MIB), **policy)  # type: ignore[arg-type] # a test's values
        made.append(
            DataPlane(
                loader=loader(state, backend),
                clock=time.perf_counter,
                workers=1,
                policy=ExecutionPolicy(limits=lambda _: QueueLimits(), memory=memory),
            )
        )
        return made[-1]

    yield make
    for plane in made:
        assert await plane.close(10)

"""Planes with limits, on gated models that run as a whole or in steps."""

import time
from collections.abc import AsyncIterator

import pytest

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.execution_policy import ExecutionPolicy
from edge_agent.inference.memory_budget import MemoryPolicy
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.gated_backend import GatedBackend
from tests.unit.edge_agent.inference.scheduler.calls import MakePlane


@pytest.fixture(params=[False, True], ids=["whole", "staged"])
def backend(request: pytest.FixtureRequest) -> GatedBackend:
    return GatedBackend(staged=request.param)


@pytest.fixture
async def make_plane(state: StateDir, backend: GatedBackend) -> AsyncIterator[MakePlane]:
    made: list[DataPlane] = []

    def make(workers: int = 1, **limits: float) -> DataPlane:
        made.append(
            DataPlane(
                loader=ReleaseLoader(
                    state=state,
                    epoch="e1",
                    catalog=Catalog([backend]),
                    clock=time.perf_counter,
                ),
                clock=time.perf_counter,
                workers=workers,
                policy=ExecutionPolicy(
                    limits=lambda _: QueueLimits(**{"instances": workers, **limits}),  # type: ignore[arg-type] # a test's numbers
                    memory=MemoryPolicy(),
                ),
            )
        )
        return made[-1]

    yield make
    backend.let_pass()
    for plane in made:
        assert await plane.close(10)

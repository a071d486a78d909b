"""Loading a release leaves to calls on others the code that they use, and the processor."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, GatedModel, gated_release
from tests.unit.edge_agent.mapped_library import FAR, MappedLibrary


class LibraryBackend(GatedBackend):
    """A backend that needs some code of its library for loading only."""

    def __init__(self, library: MappedLibrary) -> None:
        super().__init__()
        self._library = library

    def load(self, path: Path, release: ActiveRelease) -> GatedModel:
        self._library.call(FAR)
        return super().load(path, release)


@pytest.mark.parametrize("serving", [False, True])
async def test_what_calls_use_stays_mapped_and_what_loading_used_does_not(
    tmp_path: Path, *, serving: bool
) -> None:
    state = StateDir(tmp_path)
    state.create()
    state.blob("0" * 64).touch()
    library = MappedLibrary(tmp_path / "library")
    catalog = Catalog([LibraryBackend(library)])
    plane = DataPlane(
        loader=ReleaseLoader(state=state, epoch="e", catalog=catalog, clock=time.perf_counter),
        clock=time.perf_counter,
        workers=1,
    )
    if serving:
        await plane.load(gated_release("1.0.0"))
        plane.activate("m", "1.0.0")
    library.call(0)
    await plane.load(gated_release("2.0.0"))
    assert library.is_mapped(0) is serving
    assert not library.is_mapped(FAR)
    assert await plane.close(10)
    library.close()


def test_each_step_of_a_load_waits_for_a_lull(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.create()
    state.blob("0" * 64).touch()
    backend = GatedBackend()
    loader = ReleaseLoader(
        state=state, epoch="", catalog=Catalog([backend]), clock=time.perf_counter
    )
    seen: list[tuple[int, int]] = []
    loader.load(
        gated_release("1.0.0"), lull=lambda: seen.append((len(backend.models), len(backend.runs)))
    )
    assert seen == [(0, 0), (0, 0), (1, 0), (1, 0)]
    assert backend.runs


async def test_a_load_beside_calls_hears_of_their_ends(tmp_path: Path) -> None:
    """It waits for the next one, or until none has come for a while."""
    state = StateDir(tmp_path)
    state.create()
    state.blob("0" * 64).touch()
    clock = time.perf_counter
    catalog = Catalog([GatedBackend()])
    plane = DataPlane(
        loader=ReleaseLoader(state=state, epoch="e", catalog=catalog, clock=clock),
        clock=clock,
        workers=1,
    )
    await plane.load(gated_release("1.0.0"))
    plane.activate("m", "1.0.0")
    with plane.begin(plane.active("m"), started=clock(), counted=True):
        pass
    ended = clock()
    await plane.load(gated_release("2.0.0"))
    assert clock() - ended >= 0.04
    assert await plane.close(10)


class ThreadingBackend(GatedBackend):
    """A backend whose library starts a thread for the calls to come while it loads a model."""

    def __init__(self) -> None:
        super().__init__()
        self.compute = ThreadPoolExecutor(1)
        self.loaded_as = self.started_as = -1

    def load(self, path: Path, release: ActiveRelease) -> GatedModel:
        self.loaded_as = os.sched_getscheduler(0)
        self.started_as = self.compute.submit(os.sched_getscheduler, 0).result()
        return super().load(path, release)


async def test_a_load_leaves_the_processor_to_calls_and_its_threads_do_not(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.create()
    state.blob("0" * 64).touch()
    backend = ThreadingBackend()
    plane = DataPlane(
        loader=ReleaseLoader(
            state=state, epoch="e", catalog=Catalog([backend]), clock=time.perf_counter
        ),
        clock=time.perf_counter,
        workers=1,
    )
    await plane.load(gated_release("1.0.0"))
    assert (backend.loaded_as, backend.started_as) == (os.SCHED_BATCH, os.SCHED_BATCH)
    with backend.compute as compute:
        assert compute.submit(os.sched_getscheduler, 0).result() == os.SCHED_OTHER
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert await plane.close(10)

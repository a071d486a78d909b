"""Releases of a given size, for planes with a budget."""

import time
from collections.abc import Callable

import msgspec

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release

MIB = 1024 * 1024
MakePlane = Callable[..., DataPlane]
"""Makes a plane of a memory policy with a budget of 100 MiB, in which the keywords are changed."""


def loader(state: StateDir, backend: GatedBackend, *, refused: str = "") -> ReleaseLoader:
    """Return a loader, which refuses one family."""
    return ReleaseLoader(
        state=state,
        epoch="e",
        catalog=Catalog([backend]),
        clock=time.perf_counter,
        refusal=lambda release: "it has crashed us" if release.family == refused else "",
    )


def sized(family: str, mib: int, version: str = "1.0.0") -> ActiveRelease:
    return msgspec.structs.replace(gated_release(version, family=family), memory_bytes=mib * MIB)


async def serve(plane: DataPlane, release: ActiveRelease) -> None:
    await plane.load(release)
    plane.activate(release.family, release.version)

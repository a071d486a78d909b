"""Calls on gated models, and how far they are."""

import asyncio
import struct
import time
from collections.abc import Callable

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release

MakePlane = Callable[..., DataPlane]
"""Makes a plane of a number of workers, and of limits by keyword."""


async def serve(plane: DataPlane, version: str = "1.0.0", family: str = "m") -> ServedRelease:
    await plane.load(gated_release(version, family=family))
    plane.activate(family, version)
    return plane.active(family)


def request(*items: float, timeout_us: int = 0, priority: int = 0) -> InferenceRequest:
    data = struct.pack(f"<{len(items)}f", *items)
    tensor = Tensor(name="x", datatype=Datatype.FP32, shape=[len(items)], data=data)
    return InferenceRequest(
        id="",
        inputs=[tensor],
        outputs=None,
        binary_output=False,
        timeout_us=timeout_us,
        priority=priority,
    )


async def infer(plane: DataPlane, served: ServedRelease, query: InferenceRequest) -> list[float]:
    call = plane.begin(served, started=time.perf_counter(), counted=True)
    with call:
        (output,) = await plane.run_in_thread(call, call.feed(query))
    return list(struct.unpack(f"<{output.shape[0]}f", output.data))


async def start(
    plane: DataPlane, served: ServedRelease, *items: float, **asked: int
) -> "asyncio.Task[list[float]]":
    """Begin a call and return when it has joined the queue, or runs."""
    task = asyncio.create_task(infer(plane, served, request(*items, **asked)))
    await asyncio.sleep(0)
    return task


async def blocked(plane: DataPlane, backend: GatedBackend, served: ServedRelease) -> None:
    """Occupy one instance until the gate opens."""
    backend.shut()
    await start(plane, served, 100.0)
    await asyncio.to_thread(backend.wait_for_runs, 1)

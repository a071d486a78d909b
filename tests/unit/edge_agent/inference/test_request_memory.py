"""What requests take beside their bodies: decompressed data, and copies out of shared memory."""

import asyncio
import struct
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.http_errors import answering
from edge_agent.inference.http_messages import HttpRequest, HttpResponse
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.shared_memory import INLINE_BYTES, Regions, RegionStatus
from edge_agent.inference.v2_routes import V2Routes
from fleet_protocol.messages import ErrorKind
from tests.unit.edge_agent.inference.gated_backend import FAILS, GatedBackend
from tests.unit.edge_agent.inference.sized_releases import MIB, MakePlane, serve, sized

VALUES = INLINE_BYTES // 4 + 1
SIZE = VALUES * 4
LIMIT = SIZE * 3 // 2
SMALL_SIZE = INLINE_BYTES


@pytest.fixture
async def plane(make_plane: MakePlane) -> DataPlane:
    made = make_plane()
    await serve(made, sized("m", 1))
    return made


@pytest.fixture
def region() -> Iterator[Path]:
    path = Path("/dev/shm") / f"skerry-test-{uuid.uuid4().hex}"  # noqa: S108 (where it lies on Linux)
    path.write_bytes(struct.pack("<f", 1.0) * VALUES)
    yield path
    path.unlink()


def message(values: int = VALUES, **parameters: object) -> bytes:
    given = {"name": "x", "datatype": "FP32", "shape": [values], "parameters": parameters}
    wanted = {"binary_data_output": True}
    return msgspec.json.encode({"inputs": [given], "parameters": wanted})


def compressed(value: float = 1.0) -> HttpRequest:
    text = message(binary_data_size=SIZE)
    body = zlib.compress(text + struct.pack("<f", value) * VALUES)
    return posted(body, content_encoding="deflate", header_length=len(text))


def in_shared_memory() -> HttpRequest:
    return posted(message(shared_memory_region="r", shared_memory_byte_size=SIZE))


def small_in_shared_memory() -> HttpRequest:
    few = SMALL_SIZE // 4
    return posted(message(few, shared_memory_region="r", shared_memory_byte_size=SMALL_SIZE))


def posted(
    body: bytes, *, content_encoding: str = "", header_length: int | None = None
) -> HttpRequest:
    return HttpRequest(
        method="POST",
        path="/v2/models/m/infer",
        body=body,
        keep_alive=True,
        received_at=time.perf_counter(),
        content_encoding=content_encoding,
        header_length=header_length,
    )


@pytest.mark.parametrize("request_of", [compressed, in_shared_memory, small_in_shared_memory])
async def test_what_a_request_grows_to_is_taken_until_it_is_answered(
    plane: DataPlane,
    backend: GatedBackend,
    region: Path,
    request_of: Callable[[], HttpRequest],
) -> None:
    regions = Regions(max_bytes=MIB * 8, max_request_bytes=MIB * 8)
    regions.register(RegionStatus(name="r", key=region.name, offset=0, byte_size=SIZE))
    memory = RequestMemory(LIMIT)
    routes = answering(V2Routes(plane, max_request_bytes=MIB * 8, regions=regions, memory=memory))

    async def answer(asked: HttpRequest) -> HttpResponse:
        given = routes(asked)
        return await given if isinstance(given, Awaitable) else given

    for _ in range(3):  # what was answered, however, has given its memory back
        assert (await answer(request_of())).status == 200
        assert (await answer(compressed(FAILS))).status == 500
    backend.shut()
    running = asyncio.create_task(answer(request_of()))
    await asyncio.to_thread(backend.wait_for_runs, 1)
    refused = await answer(request_of())
    assert refused.status == 503
    assert "Retry-After: 1" in refused.extra_headers
    assert b"runtime.request_memory_bytes" in bytes(refused.parts[0])
    assert plane.active("m").statistics.errors[ErrorKind.REFUSED] == 1
    backend.let_pass()
    assert (await running).status == 200
    assert (await answer(request_of())).status == 200

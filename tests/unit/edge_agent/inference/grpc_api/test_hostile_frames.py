"""HTTP/2 frames that no gRPC client sends, and what is left of the server after them."""

import asyncio
import struct
import time
from pathlib import Path

import grpc.aio
import pytest

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.grpc_listeners import GrpcListeners
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.settings import RuntimeSettings
from edge_agent.state_dir import StateDir
from tests.integration.runtime.running_runtime import eventually

LIVE = "/inference.GRPCInferenceService/ServerLive"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _HEADERS, _END = 4, 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Source: RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def call(path: bytes, **headers: bytes) -> bytes:
    """Return a call's first frames; headers as literals, RFC 7541, section 6.2.2."""
    given = {":method": b"POST", ":scheme": b"http", ":path": path, ":authority": b"d"}
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value
        for name, value in {
            **given,
            "te": b"trailers",
            "content-type": b"application/grpc",
            **headers,
        }.items()
    )
    return _PREFACE + frame(_SETTINGS, 0, 0, b"") + frame(_HEADERS, _END, 1, block)


async def until_live(socket: Path) -> None:
    async with asyncio.timeout(20), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        live: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(LIVE)
        while True:
            try:
                await live(b"", wait_for_ready=True, timeout=20)
            except grpc.aio.AioRpcError:
                continue
            return


async def test_a_call_that_ends_the_librarys_server_does_not_end_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateDir(tmp_path)
    state.create()
    clock = time.perf_counter
    plane = DataPlane(
        loader=ReleaseLoader(state=state, epoch="", catalog=Catalog([]), clock=clock),
        clock=clock,
        workers=1,
    )
    listeners = GrpcListeners(
        plane=plane,
        regions=None,
        memory=RequestMemory(),
        error_answers=ErrorAnswers(),
        settings=RuntimeSettings(grpc_socket=True),
        socket=state.grpc_socket,
        clock=clock,
    )
    serving = asyncio.create_task(listeners.serve())
    await asyncio.to_thread(eventually, state.grpc_socket.exists)
    _, writer = await asyncio.open_unix_connection(state.grpc_socket)
    # The value of a header is only complained of; the call stays, as a hostile one does.
    writer.write(call(LIVE.encode(), traceparent=b"\x80"))
    await until_live(state.grpc_socket)
    assert not caplog.records
    _, other = await asyncio.open_unix_connection(state.grpc_socket)
    other.write(call(b"/a\x80"))
    await asyncio.to_thread(eventually, lambda: "grpc_ended" in caplog.messages)
    await until_live(state.grpc_socket)
    (ended,) = [record for record in caplog.records if record.message == "grpc_ended"]
    assert "UnicodeDecodeError" in str(vars(ended)["reason"])
    writer.close()
    other.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await listeners.close(10)
    assert await plane.close(10)

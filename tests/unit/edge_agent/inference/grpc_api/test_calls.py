"""Calls on a data plane over gRPC, with a model that waits or fails as the test says."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import msgspec
import pytest
from tritonclient.grpc import service_pb2

from edge_agent.inference.answer_memory import AnswerMemory
from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.error_answers import ErrorAnswers, Kind
from edge_agent.inference.execution_policy import ExecutionPolicy
from edge_agent.inference.grpc_api.callers import Callers, CallRates
from edge_agent.inference.grpc_api.server import Bounds, GrpcServer
from edge_agent.inference.grpc_api.service import Service
from edge_agent.inference.grpc_api.stream import MAX_IN_WORK
from edge_agent.inference.grpc_api.stream_places import StreamPlaces
from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from edge_agent.inference.http_server import ListenError
from edge_agent.inference.memory_budget import MemoryPolicy
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.state_dir import StateDir
from tests.integration.runtime.running_runtime import eventually
from tests.unit.edge_agent.inference.gated_backend import FAILS, GatedBackend, gated_release

MIB = 1024 * 1024
VALUES = 200_000
"""Too many to be run on the event loop."""

Infer = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


def request(value: float = 1.0, *, family: str = "m", count: int = VALUES) -> bytes:
    message = wire.ModelInferRequest(model_name=family)
    message.inputs.add(name="x", datatype="FP32", shape=[count])
    message.raw_input_contents.append(struct.pack("<f", value) * count)
    return message.SerializeToString()


def first_value(answer: bytes) -> float:
    raw = service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0]
    value: float = struct.unpack_from("<f", raw)[0]
    return value


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend(max_concurrent_runs=1)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path)
    made.create()
    made.blob("0" * 64).touch()
    return made


@pytest.fixture
async def plane(state: StateDir, backend: GatedBackend) -> AsyncIterator[DataPlane]:
    clock = time.perf_counter
    made = DataPlane(
        loader=ReleaseLoader(state=state, epoch="e", catalog=Catalog([backend]), clock=clock),
        clock=clock,
        workers=1,
        policy=ExecutionPolicy(
            limits=lambda _: QueueLimits(max_queue=2),
            memory=MemoryPolicy(budget_bytes=100 * MIB, evict_idle=True),
        ),
    )
    await serve(made, "m")
    yield made
    backend.let_pass()
    assert await made.close(30)


async def serve(plane: DataPlane, family: str) -> None:
    release = msgspec.structs.replace(gated_release(family=family), memory_bytes=60 * MIB)
    await plane.load(release)
    plane.activate(family, release.version)


def new_server(
    plane: DataPlane,
    *,
    message_s: float = 30.0,
    streams_give_way: bool = False,
    memory_bytes: int = 100 * MIB,
    error_answers: ErrorAnswers | None = None,
) -> GrpcServer:
    clock = time.perf_counter
    memory = RequestMemory(memory_bytes)
    return GrpcServer(
        service=Service(
            plane,
            regions=None,
            callers=Callers(
                memory=memory,
                answers=AnswerMemory(memory),
                rates=CallRates(requests_per_s=0, max_connections=10, clock=clock),
                streams=StreamPlaces(
                    count=2, idle_s=0.0 if streams_give_way else 60.0, clock=clock
                ),
                message_s=message_s,
            ),
            error_answers=error_answers or ErrorAnswers(),
            max_request_bytes=MIB,
            clock=clock,
        ),
        bounds=Bounds(max_message_bytes=MIB, max_connections=10, max_calls=10),
    )


@pytest.fixture
async def channel(plane: DataPlane, state: StateDir) -> AsyncIterator[grpc.aio.Channel]:
    server = new_server(plane)
    await server.listen_unix(state.grpc_socket)
    async with grpc.aio.insecure_channel(f"unix:{state.grpc_socket}") as connected:
        yield connected
    await server.close(10)


@pytest.fixture
def infer(channel: grpc.aio.Channel) -> Infer:
    return channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")


async def refusal(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def test_the_loop_goes_on_while_a_model_runs(
    channel: grpc.aio.Channel, infer: Infer, backend: GatedBackend
) -> None:
    backend.shut()
    call = infer(request(1.5))
    pending = asyncio.ensure_future(call)
    await asyncio.to_thread(backend.wait_for_runs, 1)
    live: Infer = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
    assert await live(b"", timeout=30) == b"\x08\x01"
    assert not pending.done()
    backend.let_pass()
    assert first_value(await pending) == 3.0


async def test_a_full_queue_refuses(infer: Infer, backend: GatedBackend) -> None:
    backend.shut()
    running = asyncio.ensure_future(infer(request()))
    await asyncio.to_thread(backend.wait_for_runs, 1)
    calls = [asyncio.ensure_future(infer(request())) for _ in range(3)]
    done, waiting = await asyncio.wait(calls, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = done
    error = refused.exception()
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    backend.let_pass()
    for call in (running, *waiting):
        assert first_value(await call) == 2.0


async def test_messages_share_the_memory_for_requests(
    plane: DataPlane, state: StateDir, backend: GatedBackend
) -> None:
    server = new_server(plane, memory_bytes=MIB)
    await server.listen_unix(state.grpc_socket)
    async with grpc.aio.insecure_channel(f"unix:{state.grpc_socket}") as channel:
        infer: Infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(3):  # one that was answered, however, has given its memory back
            assert first_value(await infer(request())) == 2.0
            assert (await refusal(infer(request(FAILS)))).code() is grpc.StatusCode.INTERNAL
            assert (await refusal(infer(request(family="no")))).code() is grpc.StatusCode.NOT_FOUND
        backend.shut()
        running = asyncio.ensure_future(infer(request()))
        await asyncio.to_thread(backend.wait_for_runs, 1)
        refused = await refusal(infer(request()))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "runtime.request_memory_bytes" in (refused.details() or "")
        backend.let_pass()
        assert first_value(await running) == 2.0
        assert first_value(await infer(request())) == 2.0
    await server.close(10)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_answers_that_nobody_reads_share_half_of_the_memory_for_requests(
    plane: DataPlane, state: StateDir, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    server = new_server(plane, memory_bytes=2 * MIB)
    await server.listen_unix(state.grpc_socket)
    target = f"unix:{state.grpc_socket}"
    takes_little = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with (
        grpc.aio.insecure_channel(target) as channel,
        grpc.aio.insecure_channel(target, takes_little) as deaf_channel,
    ):
        infer: Infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        ask: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = deaf_channel.stream_stream(
            f"/inference.GRPCInferenceService/{method}"
        )
        for reads in (True, False):
            deaf = ask()
            await deaf.write(request())
            refused = await until_refused(infer)
            assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "that were not read yet take" in (refused.details() or "")
            assert first_value(await infer(request(count=1))) == 2.0
            if reads:
                assert await deaf.read()
            deaf.cancel()
            await until_answered(infer)
    await server.close(10)
    assert "ExecuteBatchError" not in caplog.text


async def until_refused(infer: Infer) -> grpc.aio.AioRpcError:
    async with asyncio.timeout(10):
        while True:
            try:
                await infer(request())
            except grpc.aio.AioRpcError as error:
                return error


async def until_answered(infer: Infer) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await infer(request())
            except grpc.aio.AioRpcError:
                continue
            return


async def test_a_failure_repeats_no_more_of_a_request_than_names_have(
    channel: grpc.aio.Channel,
) -> None:
    stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer"
    )
    call = stream()
    long = "x" * 200_000
    message = wire.ModelInferRequest(model_name=long, model_version=long, id=long)
    await call.write(message.SerializeToString())
    answer = await asyncio.wait_for(call.read(), 30)
    assert isinstance(answer, bytes)
    assert len(answer) < 5000
    assert service_pb2.ModelStreamInferResponse.FromString(answer).error_message
    call.cancel()


async def test_a_caller_that_gives_up_leaves_the_queue(infer: Infer, backend: GatedBackend) -> None:
    backend.shut()
    running = asyncio.ensure_future(infer(request(1.0)))
    await asyncio.to_thread(backend.wait_for_runs, 1)
    impatient = await refusal(infer(request(7.0), timeout=0.05))
    assert impatient.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    backend.let_pass()
    assert first_value(await running) == 2.0
    assert first_value(await infer(request(2.0))) == 4.0
    assert [values[0] for values in backend.runs] == [1.0, 2.0]


async def test_a_caller_that_goes_while_its_model_runs_harms_nobody(
    infer: Infer, plane: DataPlane, backend: GatedBackend
) -> None:
    backend.shut()
    call = infer(request(7.0))
    pending = asyncio.ensure_future(call)
    await asyncio.to_thread(backend.wait_for_runs, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    unloading = asyncio.create_task(plane.unload_family("m"))
    await asyncio.sleep(0)
    assert not backend.models[-1].closed
    backend.let_pass()
    assert await unloading == 1
    assert backend.models[-1].closed


async def test_a_failing_model_is_an_internal_error(
    infer: Infer, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (1, VALUES):
        error = await refusal(infer(request(FAILS, count=count)))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "the device's log says why" in (error.details() or "")
    assert [record.message for record in caplog.records] == ["inference_failed"] * 2


async def test_a_model_that_sleeps_is_awoken_by_its_call(infer: Infer, plane: DataPlane) -> None:
    await serve(plane, "n")
    assert (await plane.status()).asleep == ["m"]
    assert first_value(await infer(request(3.0))) == 6.0
    assert (await plane.status()).asleep == ["n"]
    error = await refusal(infer(request(family="o")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stream_has_so_many_in_work_and_a_cut_withdraws_them(
    channel: grpc.aio.Channel, backend: GatedBackend, plane: DataPlane
) -> None:
    backend.shut()
    stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer"
    )
    call = stream()
    for _ in range(2 * MAX_IN_WORK):
        await asyncio.wait_for(call.write(request(count=50_000)), 30)
    await asyncio.to_thread(backend.wait_for_runs, 1)
    served = plane.active("m")
    await asyncio.to_thread(eventually, lambda: served.scheduler.depth == 2)
    call.cancel()
    await asyncio.to_thread(eventually, lambda: served.scheduler.depth == 0)
    backend.let_pass()
    await asyncio.to_thread(eventually, lambda: served.in_flight == 0)
    assert len(backend.runs) == 1


async def test_closing_waits_for_calls_up_to_its_time(
    plane: DataPlane, state: StateDir, backend: GatedBackend
) -> None:
    server = new_server(plane)
    await server.listen_unix(state.grpc_socket)
    backend.shut()
    async with grpc.aio.insecure_channel(f"unix:{state.grpc_socket}") as channel:
        infer: Infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        pending = asyncio.ensure_future(infer(request()))
        await asyncio.to_thread(backend.wait_for_runs, 1)
        closing = asyncio.create_task(server.close(30))
        await asyncio.sleep(0)
        backend.let_pass()
        assert first_value(await pending) == 2.0
        await asyncio.wait_for(closing, 30)


async def test_a_caller_that_sends_no_request_loses_its_place(
    plane: DataPlane, state: StateDir
) -> None:
    server = new_server(plane, message_s=0.2)
    await server.listen_unix(state.grpc_socket)
    async with grpc.aio.insecure_channel(f"unix:{state.grpc_socket}") as channel:
        silent: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        calls = [silent() for _ in range(10)]  # all that there are
        for call in calls:
            # The state of the call, not its answer: a stream that sends nothing has no end.
            assert await asyncio.wait_for(call.code(), 30) is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "no request came within 0.2 s" in (await call.details() or "")
        empty = silent()
        await empty.done_writing()
        assert await asyncio.wait_for(empty.code(), 30) is grpc.StatusCode.INVALID_ARGUMENT
        infer: Infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert first_value(await infer(request(2.0))) == 4.0
    await server.close(10)


async def test_streams_leave_places_for_calls_and_idle_ones_make_room(
    plane: DataPlane, state: StateDir
) -> None:
    for give_way in (False, True):
        server = new_server(plane, streams_give_way=give_way)
        await server.listen_unix(state.grpc_socket)
        async with grpc.aio.insecure_channel(f"unix:{state.grpc_socket}") as channel:
            stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                "/inference.GRPCInferenceService/ModelStreamInfer"
            )
            calls = [stream(), stream()]
            for call in calls:
                await call.write(request(count=1))
                assert await asyncio.wait_for(call.read(), 30)
            calls.append(stream())
            out = calls[0] if give_way else calls[2]
            assert await asyncio.wait_for(out.code(), 30) is (
                grpc.StatusCode.UNAVAILABLE if give_way else grpc.StatusCode.RESOURCE_EXHAUSTED
            )
            assert ("made room" if give_way else "2 streams are open") in (await out.details())
            infer: Infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            assert first_value(await infer(request(2.0))) == 4.0
            for call in calls:
                call.cancel()
        await server.close(10)


async def test_what_is_refused_is_counted_by_kind(plane: DataPlane, state: StateDir) -> None:
    answers = ErrorAnswers()
    server = new_server(plane, error_answers=answers)
    await server.listen_unix(state.grpc_socket)
    async with grpc.aio.insecure_channel(f"unix:{state.grpc_socket}") as channel:

        def call(method: str) -> Infer:
            return channel.unary_unary(f"/inference.GRPCInferenceService/{method}")

        await refusal(call("ModelInfer")(request(family="no")))
        await refusal(call("ModelMetadata")(b"\xff"))
        await refusal(call("RepositoryModelLoad")(b""))
        stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer"
        )
        streams = [stream(), stream()]
        for each in streams:
            for payload in (request(family="no"), request(FAILS)):
                await each.write(payload)
                assert await asyncio.wait_for(each.read(), 30)
        streams.append(stream())
        assert await asyncio.wait_for(streams[-1].code(), 30)
        for each in streams:
            each.cancel()
    await server.close(10)
    assert {kind: count for kind, count in answers.counts.items() if count} == {
        Kind.UNKNOWN_NAME: 3,
        Kind.BAD_REQUEST: 1,
        Kind.FORBIDDEN: 1,
        Kind.BACKEND: 2,
        Kind.BUSY: 1,
    }


async def test_addresses_that_cannot_be_listened_on(plane: DataPlane, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="for gRPC"):
        await new_server(plane).listen_unix(tmp_path / "missing" / "grpc.sock")
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:9 for gRPC .*runtime\.grpc_port"):
        await new_server(plane).listen_tcp("192.0.2.1", 9)

"""Where gRPC listens, what it keeps out, and how it ends."""

import queue
import signal
import socket
import time
from functools import partial
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype
from tests.conformance.triton_grpc.conftest import free_port, listening
from tests.conformance.triton_grpc.tensors import given, image, sample
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.reference_calls import batch, golden
from tests.integration.runtime.running_runtime import RunningRuntime, eventually, running
from tests.simulators.onnx_files import identity_release
from tests.unit.edge_agent.inference.reference_release import commit, reference_release

PORT = "SKERRY_AGENT_RUNTIME__GRPC_PORT"
SOCKET = "SKERRY_AGENT_RUNTIME__GRPC_SOCKET"


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """A device that has committed to the reference model."""
    made = StateDir(tmp_path / "device")
    commit(made, reference_release(made))
    return made


def libraries(runtime: RunningRuntime) -> str:
    return Path(f"/proc/{runtime.process.pid}/maps").read_text()


def http_serves(state: StateDir) -> bool:
    with RawClient(state.runtime_socket) as client:
        return client.call("GET", "/v2/health/ready").status == 200


def test_it_is_off_and_not_in_memory_unless_turned_on(state: StateDir) -> None:
    with running(state.root) as runtime:
        runtime.ready()
        assert "cygrpc" not in libraries(runtime)
        assert "google/_upb" not in libraries(runtime)
        assert not state.grpc_socket.exists()
    with running(state.root, **{SOCKET: "true"}) as runtime:
        listening(runtime, 1)
        assert "cygrpc" in libraries(runtime)


def test_without_the_extra_http_serves_and_the_log_names_it(
    state: StateDir, tmp_path: Path, grpc_port: int
) -> None:
    broken = tmp_path / "broken" / "grpc"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('No module named grpc')")
    settings = {PORT: str(grpc_port), "PYTHONPATH": str(broken.parent)}
    with running(state.root, **settings) as runtime:
        runtime.ready()
        eventually(lambda: bool(runtime.events("grpc_not_serving")), runtime.log_text)
        (event,) = runtime.events("grpc_not_serving")
        assert "pip install 'skerry[grpc]'" in event["reason"]
        assert http_serves(state)
        assert runtime.stop() == 0


def test_callers_from_the_network_have_no_memory_of_this_machine(
    state: StateDir, grpc_port: int
) -> None:
    port = free_port()
    commit(state)
    settings = {
        "SKERRY_AGENT_RUNTIME__HOST": "0.0.0.0",  # noqa: S104 (what is tested)
        "SKERRY_AGENT_RUNTIME__EXPOSE_TO_NETWORK": "true",
        "SKERRY_AGENT_RUNTIME__SHARED_MEMORY": "true",
        "SKERRY_AGENT_RUNTIME__PORT": str(port),
        PORT: str(grpc_port),
        SOCKET: "true",
    }
    with running(state.root, **settings) as runtime:
        listening(runtime, 2)
        eventually(lambda: bool(runtime.events("tcp_listening")), runtime.log_text)
        offered = {}
        for address in (f"127.0.0.1:{grpc_port}", f"unix:{state.grpc_socket}"):
            with triton.InferenceServerClient(address) as client:
                offered[address] = list(client.get_server_metadata().extensions)
        with triton_http.InferenceServerClient(f"127.0.0.1:{port}") as client:
            offered["http"] = client.get_server_metadata()["extensions"]
            with pytest.raises(InferenceServerException, match="not enabled here"):
                client.register_system_shared_memory("r", "/r", 8)
        with_memory = [at for at, names in offered.items() if "system_shared_memory" in names]
        assert with_memory == [f"unix:{state.grpc_socket}"]


def test_a_port_in_use_is_waited_for(state: StateDir, grpc_port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", grpc_port)) as other,
        running(state.root, **{PORT: str(grpc_port)}) as runtime,
    ):
        runtime.ready()
        eventually(lambda: bool(runtime.events("grpc_not_listening")), runtime.log_text)
        assert "runtime.grpc_port" in runtime.events("grpc_not_listening")[0]["reason"]
        assert http_serves(state)
        other.close()
        listening(runtime, 1)
        with triton.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
            assert client.is_server_ready()
        assert len(runtime.events("grpc_not_listening")) == 1


def test_the_socket_lets_every_local_user_in_and_goes_with_the_runtime(state: StateDir) -> None:
    with running(state.root, **{SOCKET: "true"}) as runtime:
        listening(runtime, 1)
        assert state.grpc_socket.stat().st_mode & 0o777 == 0o666
        runtime.stop(signal.SIGKILL)
    assert state.grpc_socket.exists()
    with running(state.root, **{SOCKET: "true"}) as runtime:
        listening(runtime, 2)  # the log goes on after that of the killed one
        with triton.InferenceServerClient(f"unix:{state.grpc_socket}") as client:
            assert client.is_server_ready()
        assert runtime.stop() == 0
    assert not state.grpc_socket.exists()


def test_stopping_answers_what_is_in_work_and_ends_streams(state: StateDir) -> None:
    answers: queue.Queue[object] = queue.Queue()
    with running(state.root, **{SOCKET: "true"}) as runtime:
        listening(runtime, 1)
        client = triton.InferenceServerClient(f"unix:{state.grpc_socket}")
        client.start_stream(lambda result, error: answers.put(error or result))
        for _ in range(5):
            client.async_stream_infer("fashion_mnist", [image(batch(500))])
        for _ in range(5):
            assert isinstance(answers.get(timeout=30), triton.InferResult)
        began = time.monotonic()
        assert runtime.stop() == 0
        assert time.monotonic() - began < 5
        ending = answers.get(timeout=30)
        assert isinstance(ending, InferenceServerException)
        assert "StatusCode.UNAVAILABLE" in str(ending)
        assert "the runtime is stopping" in str(ending)
        client.stop_stream()
        client.close()
        assert not runtime.events("runtime_stopped")[0]["calls_cut_off"]
        assert "traceback" not in runtime.log_text()


def test_connections_beyond_the_limit_are_closed_and_room_comes_back(
    state: StateDir, grpc_port: int
) -> None:
    settings = {PORT: str(grpc_port), "SKERRY_AGENT_RUNTIME__MAX_CONNECTIONS": "4"}
    with running(state.root, **settings) as runtime:
        listening(runtime, 1)
        # Each of these would share one connection otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=options) for _ in range(4)
        ]
        for channel in channels:
            grpc.channel_ready_future(channel).result(timeout=30)
        extra = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=options)
        with pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(extra).result(timeout=1)
        channels.pop().close()
        grpc.channel_ready_future(extra).result(timeout=30)
        for channel in [extra, *channels]:
            channel.close()


def test_each_tcp_connection_has_a_rate(state: StateDir, grpc_port: int) -> None:
    settings = {
        PORT: str(grpc_port),
        SOCKET: "true",
        "SKERRY_AGENT_RUNTIME__RATE_LIMIT_PER_S": "5",
    }
    inputs = [image(golden("fp32")[0][0])]
    addresses = [f"127.0.0.1:{grpc_port}", f"unix:{state.grpc_socket}"]
    with running(state.root, **settings) as runtime:
        listening(runtime, 2)
        tcp, unix = [triton.InferenceServerClient(address) for address in addresses]

        def infer_often(client: triton.InferenceServerClient) -> None:
            for _ in range(30):
                client.infer("fashion_mnist", inputs)

        with pytest.raises(InferenceServerException, match="5 requests a second") as refusal:
            infer_often(tcp)
        assert refusal.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        infer_often(unix)
        answers: queue.Queue[object] = queue.Queue()
        tcp.start_stream(lambda result, error: answers.put(error or result))
        for _ in range(30):
            tcp.async_stream_infer("fashion_mnist", inputs)
        tcp.stop_stream()
        assert any("5 requests a second" in str(answer) for answer in answers.queue)
        tcp.close()
        unix.close()


def test_calls_beyond_the_limit_are_refused(state: StateDir) -> None:
    settings = {SOCKET: "true", "SKERRY_AGENT_RUNTIME__MAX_CONNECTIONS": "2"}
    release = identity_release(state, "echo", Datatype.INT32, [-1, 4])
    commit(state, reference_release(state), release)
    with running(state.root, **settings) as runtime:
        listening(runtime, 1)
        with grpc.insecure_channel(f"unix:{state.grpc_socket}") as channel:
            waiting: queue.Queue[bytes | None] = queue.Queue()
            silent: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
                "/inference.GRPCInferenceService/ModelInfer"
            )
            streams = [silent.future(iter(partial(waiting.get), None)) for _ in range(2)]
            client = triton.InferenceServerClient(f"unix:{state.grpc_socket}")

            def refused() -> bool:
                try:
                    client.infer("echo", [given("x", sample(Datatype.INT32), Datatype.INT32)])
                except InferenceServerException as error:
                    return bool(error.status() == "StatusCode.RESOURCE_EXHAUSTED")
                return False

            eventually(refused)
            for stream in streams:
                stream.cancel()
                waiting.put(None)
            eventually(lambda: not refused())
            client.infer("fashion_mnist", [image(golden("fp32")[0][0])])
            client.close()

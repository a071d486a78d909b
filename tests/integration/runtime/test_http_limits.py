"""The server's limits with short times: callers who are slow, do not read, or are too many."""

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from edge_agent.inference.http_connection import Limits
from edge_agent.inference.http_messages import HttpRequest, HttpResponse
from edge_agent.inference.http_server import HttpServer, ListenError, listen_tcp, listen_unix
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.running_runtime import eventually

LARGE = 8 * 1024 * 1024


def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse(parts=[b"head", bytes(LARGE)] if request.path == "/large" else [b"small"])


@contextlib.contextmanager
def serving(
    path: Path, max_connections: int = 8, max_bodies_bytes: int = LARGE * 100, **limits: float
) -> Iterator[Path]:
    """Serve on uvloop in a thread, as the process does."""
    started = threading.Event()
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        server = HttpServer(
            handler=answer,
            limits=Limits(max_body_bytes=LARGE, max_bodies_bytes=max_bodies_bytes, **limits),
            max_connections=max_connections,
            clock=time.perf_counter,
        )
        server.serve(listen_unix(path, 0o600))
        stop = asyncio.Event()
        stops.append((asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()
        await server.close(1.0)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    try:
        yield path
    finally:
        for loop, stop in stops:
            loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.mark.parametrize("data", [b"GET / HT", b"\r\n\r\nG"])
def test_a_slow_head_is_answered_408(path: Path, data: bytes) -> None:
    with serving(path, head_s=0.2), RawClient(path) as client:
        client.socket.sendall(data)
        assert client.receive().status == 408
        assert client.closed_by_server()


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ],
)
def test_a_slow_body_is_answered_408(path: Path, data: bytes) -> None:
    with serving(path, body_s=0.2, body_bytes_per_s=1e9), RawClient(path) as client:
        client.socket.sendall(data)
        assert client.receive().status == 408


def test_trickling_buys_no_time(path: Path) -> None:
    with serving(path, head_s=0.5), RawClient(path) as client:
        began = time.monotonic()
        client.socket.sendall(b"GET / HTTP/1.1\r\nX: ")
        while not select.select([client.socket], [], [], 0.05)[0]:
            client.socket.send(b"y")
            assert time.monotonic() - began < 5
        assert client.receive().status == 408


def test_patience_ends_only_what_is_late(path: Path) -> None:
    with serving(path, head_s=0.2, body_s=0.2, write_s=0.2), RawClient(path) as idle:
        assert idle.call("GET", "/").status == 200
        with RawClient(path) as slow:
            slow.socket.sendall(b"GET")
            assert slow.receive().status == 408
        # As long as somebody else needed to lose patience with, and a connection lives on.
        assert idle.call("GET", "/").status == 200


def test_a_caller_who_does_not_read_is_cut_off(path: Path) -> None:
    with serving(path, write_s=0.2, body_bytes_per_s=1e9), RawClient(path) as deaf:
        deaf.socket.sendall(b"GET /large HTTP/1.1\r\n\r\n" * 3)
        hang_up = select.poll()
        hang_up.register(deaf.socket, 0)
        assert hang_up.poll(10_000)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := deaf.socket.recv(1 << 20):
                received += len(piece)
        assert received < LARGE


def test_a_large_answer_may_take_its_time(path: Path) -> None:
    with serving(path, write_s=0.2, body_bytes_per_s=1e6), RawClient(path) as slow:
        slow.socket.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        hang_up = select.poll()
        hang_up.register(slow.socket, 0)
        assert not hang_up.poll(1_500)
        assert slow.receive().body == b"head" + bytes(LARGE)


def send_without_end(client: RawClient) -> None:
    while True:
        client.socket.sendall(bytes(1000))


def test_a_refused_caller_who_goes_on_sending_is_cut_off(path: Path) -> None:
    with serving(path, linger_s=0.2), RawClient(path) as client:
        client.socket.sendall(b"nonsense\r\n\r\n")
        assert client.receive().status == 400
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_without_end(client)


def test_callers_share_the_memory_for_bodies(path: Path) -> None:
    size = LARGE * 3 // 4
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    with serving(path, max_bodies_bytes=LARGE), RawClient(path) as client:
        for _ in range(3):  # an answered request has given its memory back
            client.socket.sendall(request)
            assert client.receive().status == 200
        with RawClient(path) as slow:
            slow.socket.sendall(request[:-1])
            client.socket.sendall(request)
            refused = client.receive()
            assert refused.status == 503
            assert "(setting runtime.request_memory_bytes)" in refused.error
            assert refused.headers["retry-after"] == "1"
        with RawClient(path) as again:
            again.socket.sendall(request)
            assert again.receive().status == 200


def test_answers_that_nobody_reads_take_no_more_memory_than_all_may(path: Path) -> None:
    asked = b"GET /large HTTP/1.1\r\n\r\n"
    with serving(path, max_bodies_bytes=LARGE * 3 // 2), RawClient(path) as patient:
        patient.socket.sendall(asked)
        assert select.select([patient.socket], [], [], 10)[0]
        with RawClient(path) as dropped:
            dropped.socket.sendall(asked)
            with pytest.raises(ConnectionError):
                dropped.receive()
        assert patient.receive().body == b"head" + bytes(LARGE)
        with RawClient(path) as other:
            assert other.call("GET", "/large").body == b"head" + bytes(LARGE)


def test_a_slow_reader_gets_everything(path: Path) -> None:
    with serving(path), RawClient(path) as client:
        client.socket.sendall(b"GET /large HTTP/1.1\r\n\r\n" * 2 + b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(2):
            assert client.receive().body == b"head" + bytes(LARGE)
        assert client.receive().body == b"small"


def test_who_reads_nothing_makes_room_for_others(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(path, max_bodies_bytes=LARGE * 3 // 2), RawClient(path) as deaf:
        deaf.socket.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert select.select([deaf.socket], [], [], 10)[0]

        def another_is_answered() -> bool:
            with RawClient(path) as other, contextlib.suppress(ConnectionError):
                return other.call("GET", "/large").body == b"head" + bytes(LARGE)
            return False

        assert not another_is_answered()
        eventually(another_is_answered)
        assert "answers_not_read" in caplog.messages
        with pytest.raises(ConnectionError):
            deaf.receive()


def test_further_connections_wait_for_one_to_close(path: Path) -> None:
    with serving(path, max_connections=2), RawClient(path) as first, RawClient(path) as second:
        assert first.call("GET", "/").status == 200
        assert second.call("GET", "/").status == 200
        with RawClient(path) as third:
            third.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert not select.select([third.socket], [], [], 0.3)[0]
            first.socket.close()
            assert third.receive().status == 200
            assert second.call("GET", "/").status == 200


def test_idle_connections_make_room(path: Path) -> None:
    with serving(path, max_connections=1, idle_s=0.2), RawClient(path) as idle:
        assert idle.call("GET", "/").status == 200
        with RawClient(path) as other:
            assert other.call("GET", "/").status == 200
        assert idle.closed_by_server()


def test_an_address_in_use_is_named_with_its_settings(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port} \(settings runtime\.host and"):
            listen_tcp("127.0.0.1", port)
    with pytest.raises(ListenError, match="cannot listen on the socket"):
        listen_unix(tmp_path / "missing" / "s", 0o600)


def test_a_unix_socket_has_its_mode_at_once(tmp_path: Path) -> None:
    for mode in (0o600, 0o666):
        path = tmp_path / f"s{mode}"
        with listen_unix(path, mode):
            assert path.stat().st_mode & 0o777 == mode

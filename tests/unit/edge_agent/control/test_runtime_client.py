"""The admin socket's client against a real HTTP server on a Unix socket."""

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import pytest

from edge_agent.control.runtime_client import (
    AdminSocket,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.runtime_api import ActiveRelease, RuntimeStatus
from fleet_protocol.manifest import Format
from tests.simulators.device_releases import fp32

STATUS = RuntimeStatus(epoch="e", pid=7, releases=[], resident_bytes=1, backends={})
RELEASE = ActiveRelease(
    family="animals",
    version="1.0.0",
    variant="v",
    format=Format.ONNX,
    accelerator="cpu",
    sha256="0" * 64,
    inputs=[],
    outputs=[],
)


class Server:
    """Answers every request alike and remembers the requests."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b"{}"
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, str, bytes]] = []


@contextmanager
def listening(path: Path) -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            server.requests.append((self.command, self.path, self.rfile.read(length)))
            self.send_response(server.status)
            self.send_header("Content-Length", str(len(server.body)))
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(server.body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 (names of the base class)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the base)
            pass

    with socketserver.UnixStreamServer(str(path), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        listener.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with listening(tmp_path / "s") as server:
        yield server


@pytest.fixture
def runtime(tmp_path: Path) -> AdminSocket:
    return AdminSocket(tmp_path / "s")


def test_each_method_is_its_route(server: Server, runtime: AdminSocket) -> None:
    runtime.load(RELEASE)
    runtime.activate("animals", "1.0.0")
    runtime.unload("animals", "1.0.0")
    runtime.stop_family("animals")
    assert [(method, path) for method, path, _ in server.requests] == [
        ("POST", "/admin/releases"),
        ("POST", "/admin/families/animals/activate"),
        ("DELETE", "/admin/families/animals/versions/1.0.0"),
        ("DELETE", "/admin/families/animals"),
    ]
    assert msgspec.json.decode(server.requests[0][2], type=ActiveRelease) == RELEASE
    assert json.loads(server.requests[1][2]) == {"version": "1.0.0"}


def test_status_is_decoded(server: Server, runtime: AdminSocket) -> None:
    server.body = msgspec.json.encode(STATUS)
    assert runtime.status() == STATUS


def test_an_inference_goes_to_the_version(server: Server, runtime: AdminSocket) -> None:
    header = json.dumps(
        {
            "outputs": [
                {
                    "name": "y",
                    "datatype": "FP32",
                    "shape": [1],
                    "parameters": {"binary_data_size": 4},
                }
            ]
        }
    ).encode()
    server.body = header + b"\x00\x00\x80\x3f"
    server.headers = {"Inference-Header-Content-Length": str(len(header))}
    tensors = runtime.infer("animals", "1.0.0", [fp32("x", [1.0], [1])], ["y"])
    assert tensors["y"].data == b"\x00\x00\x80\x3f"
    assert server.requests[0][1] == "/v2/models/animals/versions/1.0.0/infer"


@pytest.mark.parametrize("status", [400, 409, 422, 500])
def test_a_refusal_carries_the_runtimes_words(
    server: Server, runtime: AdminSocket, status: int
) -> None:
    server.status, server.body = status, b'{"error": "no such thing"}'
    with pytest.raises(RuntimeRefusedError, match="no such thing") as caught:
        runtime.load(RELEASE)
    assert caught.value.status == status


def test_what_is_gone_already_need_not_be_dropped(server: Server, runtime: AdminSocket) -> None:
    server.status, server.body = 404, b'{"error": "unknown"}'
    runtime.unload("animals", "1.0.0")
    runtime.stop_family("animals")
    with pytest.raises(RuntimeRefusedError):
        runtime.activate("animals", "1.0.0")


def test_a_runtime_that_cannot_now_is_unavailable(server: Server, runtime: AdminSocket) -> None:
    server.status = 503
    with pytest.raises(RuntimeUnavailableError):
        runtime.load(RELEASE)


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff"])
def test_a_status_that_is_none_is_unavailable(
    server: Server, runtime: AdminSocket, body: bytes
) -> None:
    server.body = body
    with pytest.raises(RuntimeUnavailableError):
        runtime.status()


def test_an_answer_to_inference_that_is_not_v2_is_a_refusal(
    server: Server, runtime: AdminSocket
) -> None:
    server.body = b"[]"
    with pytest.raises(RuntimeRefusedError):
        runtime.infer("animals", "1.0.0", [], ["y"])


@pytest.mark.parametrize("body", [b"[]", b'{"seconds": {"1.0.0": 0.5}}', b'{"seconds": 1}'])
def test_a_race_without_all_results_is_a_refusal(
    server: Server, runtime: AdminSocket, body: bytes
) -> None:
    server.body = body
    with pytest.raises(RuntimeRefusedError):
        runtime.race("animals", ["1.0.0", "1.1.0"], [])


def test_no_socket_and_no_listener_are_unavailable(tmp_path: Path, runtime: AdminSocket) -> None:
    with pytest.raises(RuntimeUnavailableError, match="does not answer"):
        runtime.status()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
    with pytest.raises(RuntimeUnavailableError, match="does not answer"):
        runtime.status()

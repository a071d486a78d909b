"""A small HTTPS server on a free loopback port whose answers a test writes."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What goes back.

    Attributes:
        length: ``Content-Length`` if it shall lie about the body.
        wait: waited for between headers and body.
        pause_s: made after each byte of the body; 0 sends it at once.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    wait: threading.Event | None = None
    pause_s: float = 0.0


@contextmanager
def serving(context: ssl.SSLContext, answer: Callable[[Request], Answer]) -> Iterator[str]:
    """Serve until the block ends; yield the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            request = Request(
                self.command, self.path, dict(self.headers.items()), self.rfile.read(length)
            )
            given = answer(request)
            self.send_response(given.status)
            size = len(given.body) if given.length is None else given.length
            self.send_header("Content-Length", str(size))
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if given.wait is not None:
                self.wfile.flush()
                given.wait.wait(30)
            if not given.pause_s:
                self.wfile.write(given.body)
                return
            for byte in given.body:
                self.wfile.write(bytes((byte,)))
                self.wfile.flush()
                time.sleep(given.pause_s)

        do_GET = do_POST = answer  # noqa: N815 (names of the base class)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the base)
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that broke off is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def endless_head(context: ssl.SSLContext) -> Iterator[str]:
    """Answer one request with header after header until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not ended.wait(0.02):
                    connection.sendall(b"X-A: b\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}"
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()

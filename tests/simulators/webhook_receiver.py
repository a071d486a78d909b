"""A receiver of webhooks: a process of its own, over HTTP or HTTPS on the loopback.

Called with PORT LOG [CERTIFICATE KEY] it appends a JSON line to LOG for each request, on disk
before it answers. The path says how it answers: ``/ok``, ``/status/N``, ``/redirect``, ``/flaky/N``
(fails N times for each event), ``/hang``, ``/flood`` (a body without end).
"""

import base64
import hashlib
import hmac
import json
import os
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

from tests.simulators import child_process


class _Handler(BaseHTTPRequestHandler):
    log: Path
    seen: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        entry = {
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode(),
        }
        with self.log.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._answer(self.headers["webhook-id"])

    def _answer(self, event_id: str) -> None:
        _, kind, *rest = self.path.split("/")
        if kind == "hang":
            Event().wait()
        if kind == "redirect":
            self._reply(302, location="/ok")
        elif kind == "status":
            self._reply(int(rest[0]))
        elif kind == "flaky":
            self.seen[event_id] += 1
            self._reply(500 if self.seen[event_id] <= int(rest[0]) else 204)
        elif kind == "flood":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"x" * 65536)
        else:
            self._reply(204)

    def _reply(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class WebhookReceiver:
    """A running receiver.

    Attributes:
        url: without a path.
        log: what it took.
    """

    url: str
    log: Path

    @property
    def requests(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def running(log: Path, *tls: Path, port: int = 0) -> Iterator[WebhookReceiver]:
    """Run a receiver.

    Args:
        log: its file.
        tls: certificate and key, for HTTPS.
        port: any free one if it is 0.
    """
    child = subprocess.Popen(
        child_process.command(__name__, port, log, *tls),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=child_process.ROOT,
    )
    with child:
        try:
            assert child.stdout is not None
            listening = int(child.stdout.readline())
            host = "https://localhost" if tls else "http://127.0.0.1"
            yield WebhookReceiver(f"{host}:{listening}", log)
        finally:
            child.kill()


def verified(secret: str, request: Mapping[str, Any]) -> bool:
    """Verify a signature as the specification tells a receiver to."""
    headers = request["headers"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{request['body']}".encode()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{wanted}" in headers["webhook-signature"].split(" ")


def main(port: str, log: str, certificate: str = "", key: str = "") -> None:
    _Handler.log = Path(log)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)  # noqa: T201 (tells the test that it listens, and where)
    server.serve_forever()

"""A release server for publishers: HTTPS, a bearer token, a real TUF repository, faults on demand.

It verifies an upload as the fleet server must (signature, version, lengths, hashes) and signs
snapshot and timestamp anew. Tests reach in to make it answer wrongly.
"""

import email.parser
import email.policy
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

TOKEN = "publisher-token"
_METADATA = "/api/v1/repository/metadata/"
_RELEASES = "/api/v1/releases"


class RefusedError(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass
class Faults:
    """What a test lets go wrong; each is off at first.

    Attributes:
        before_upload: the first is called when an upload has arrived, before it is looked at; the
            next one with the next upload.
        answer: given to every upload instead of looking at it.
        metadata: content that is served in the place of a file, by its name.
        take_without_publishing: uploads are answered with success and forgotten.
        hang_up: uploads are cut off without an answer.
    """

    before_upload: list[Callable[[], None]] = field(default_factory=list)
    answer: tuple[int, bytes] | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)
    take_without_publishing: bool = False
    hang_up: bool = False


class ReleaseServer:
    """One repository, made from the ``server`` folder of an authority."""

    def __init__(self, data: Path) -> None:
        self.faults = Faults()
        self.uploads = 0
        self.url = ""
        self._metadata = data / "repository" / "metadata"
        self._targets = data / "repository" / "targets"
        self._online = data / "online"

    @contextmanager
    def running(self) -> Iterator["ReleaseServer"]:
        """Serve on a free port while the block runs."""
        server = _HttpsServer(self)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._online / "tls.crt", self._online / "tls.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.url = f"https://localhost:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def metadata(self, name: str) -> bytes:
        """Return a metadata file as it is served."""
        if name in self.faults.metadata:
            return self.faults.metadata[name]
        path = self._metadata / name
        if not path.is_file():
            raise RefusedError(404, f"there is no {name}")
        return path.read_bytes()

    def role(self, name: str) -> Targets:
        """Return the current metadata of a delegated role."""
        version = self._snapshot().meta[f"{name}.json"].version
        return (
            Metadata[Targets]
            .from_bytes((self._metadata / f"{version}.{name}.json").read_bytes())
            .signed
        )

    def target(self, path: str, sha256: str) -> bytes:
        """Return a published file."""
        folder, _, name = path.rpartition("/")
        return (self._targets / folder / f"{sha256}.{name}").read_bytes()

    def publish(self, content: bytes, files: dict[str, bytes]) -> None:
        """Take an upload or refuse it."""
        targets = Metadata[Targets].from_bytes((self._metadata / "1.targets.json").read_bytes())
        try:
            uploaded = Metadata[Targets].from_bytes(content)
            family = next(iter(uploaded.signed.targets)).split("/")[1]
            targets.signed.verify_delegate(family, uploaded.signed_bytes, uploaded.signatures)
        except (RepositoryError, DeserializationError) as error:
            raise RefusedError(422, f"the metadata does not verify: {error}") from error
        current = self.role(family)
        if uploaded.signed.version != current.version + 1:
            raise RefusedError(409, f"version {uploaded.signed.version} does not follow")
        new = {
            path: target
            for path, target in uploaded.signed.targets.items()
            if path not in current.targets
        }
        if new.keys() != files.keys() or not all(_fits(new[path], files[path]) for path in new):
            raise RefusedError(422, "the files are not the signed ones")
        for path, data in files.items():
            folder, _, name = path.rpartition("/")
            (self._targets / folder).mkdir(parents=True, exist_ok=True)
            (self._targets / folder / f"{hashlib.sha256(data).hexdigest()}.{name}").write_bytes(
                data
            )
        (self._metadata / f"{uploaded.signed.version}.{family}.json").write_bytes(content)
        self._sign_online(family, content, uploaded.signed.version)

    def _snapshot(self) -> Snapshot:
        timestamp = Metadata[Timestamp].from_file(str(self._metadata / "timestamp.json")).signed
        version = timestamp.snapshot_meta.version
        return Metadata[Snapshot].from_file(str(self._metadata / f"{version}.snapshot.json")).signed

    def _sign_online(self, family: str, content: bytes, version: int) -> None:
        snapshot = Metadata(self._snapshot())
        snapshot.signed.version += 1
        snapshot.signed.meta[f"{family}.json"] = MetaFile.from_data(version, content, ["sha256"])
        snapshot.sign(self.signer("snapshot"))
        (self._metadata / f"{snapshot.signed.version}.snapshot.json").write_bytes(
            snapshot.to_bytes()
        )
        old = Metadata[Timestamp].from_file(str(self._metadata / "timestamp.json")).signed
        timestamp = Metadata(
            Timestamp(
                version=old.version + 1,
                expires=datetime.now(UTC) + timedelta(days=1),
                snapshot_meta=MetaFile.from_data(
                    snapshot.signed.version, snapshot.to_bytes(), ["sha256"]
                ),
            )
        )
        timestamp.sign(self.signer("timestamp"))
        (self._metadata / "timestamp.json").write_bytes(timestamp.to_bytes())

    def signer(self, name: str) -> CryptoSigner:
        """Return the online key of a role."""
        pem = (self._online / f"{name}.pem").read_bytes()
        return CryptoSigner(load_pem_private_key(pem, None))


class _HttpsServer(ThreadingHTTPServer):
    def __init__(self, release_server: ReleaseServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.release_server = release_server

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing of connections that a client gave up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    @property
    def _release_server(self) -> ReleaseServer:
        assert isinstance(self.server, _HttpsServer)
        return self.server.release_server

    def do_GET(self) -> None:
        self._answer(lambda: self._release_server.metadata(self.path.removeprefix(_METADATA)))

    def do_POST(self) -> None:
        if self._release_server.faults.hang_up:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(lambda: self._published(body))

    def _published(self, body: bytes) -> bytes:
        server = self._release_server
        server.uploads += 1
        if server.faults.before_upload:
            server.faults.before_upload.pop(0)()
        if self.path != _RELEASES:
            raise RefusedError(404, "no such route")
        if server.faults.answer is None and not server.faults.take_without_publishing:
            server.publish(*_form(self.headers["Content-Type"], body))
        return b"{}"

    def _answer(self, produce: Callable[[], bytes]) -> None:
        status, content = 401, _refusal("this needs a token of the role publisher")
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            try:
                status, content = 200, produce()
            except RefusedError as refusal:
                status, content = refusal.status, _refusal(refusal.detail)
        if self.command == "POST" and self._release_server.faults.answer is not None:
            status, content = self._release_server.faults.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def _refusal(detail: str) -> bytes:
    return json.dumps({"detail": detail}).encode()


def _fits(target: TargetFile, content: bytes) -> bool:
    return (target.length, target.hashes) == (
        len(content),
        {"sha256": hashlib.sha256(content).hexdigest()},
    )


def _form(content_type: str, body: bytes) -> tuple[bytes, dict[str, bytes]]:
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    metadata, files = b"", {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            raise RefusedError(400, "not a form")
        if part.get_param("name", header="Content-Disposition") == "metadata":
            metadata = content
        else:
            files[str(part.get_filename())] = content
    return metadata, files

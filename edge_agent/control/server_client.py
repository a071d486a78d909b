"""HTTPS to the fleet server: pinned authority, a fresh device token for each request, bounds.

No redirect is followed and no proxy variable is read: the address comes from the enrolment and the
token is for that server alone. The head of an answer has a time to come in, and a body has to move
on, so a server that trickles holds nothing up for long.
"""

import contextlib
import http.client
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Protocol
from urllib.parse import quote

import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey
from urllib3.connection import HTTPSConnection

from edge_agent.control.answer_head import stated_bytes
from edge_agent.control.clock import Clock
from edge_agent.errors import AgentError
from fleet_protocol.claims import DEVICE_AUDIENCE, DEVICE_TOKEN_LIFETIME_S
from fleet_protocol.messages import MAX_MESSAGE_BYTES

METADATA_ROUTE = "/device/v1/repository/metadata/"
TARGETS_ROUTE = "/device/v1/repository/targets/"
DIRECTOR_ROUTE = "/device/v1/director/"
DELTAS_ROUTE = "/device/v1/repository/deltas/"

_CHUNK_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 15.0
_HEAD_TIMEOUT_S = 30.0
_SMALL_BUFFER_BYTES = 32 * 1024
_PACE_S = 60.0
"""So long a body is waited for before its rate is judged, again and again."""

_MIN_BYTES_PER_S = 4096


class ServerUnreachableError(AgentError):
    """The server could not be asked, or broke off; the same request may succeed later."""


class ServerTooSlowError(ServerUnreachableError):
    """The server hands out so little at a time that waiting would hold the device up."""


class UnfitAnswerError(ServerUnreachableError):
    """Something answered, but not with what was asked for; nothing of it was taken."""


class ServerRefusedError(AgentError):
    """The server answered with an error.

    Attributes:
        status: its HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Body(Protocol):
    """An answer whose body is read in pieces."""

    @property
    def status(self) -> int:
        """HTTP status, 200 or 206; the latter for the part that was asked for and no other."""

    @property
    def file_bytes(self) -> int | None:
        """How large the whole file is, None if the answer does not say."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the body.

        Raises:
            ServerUnreachableError: the connection broke.
        """


class ReleaseServer(Protocol):
    """Where TUF metadata and targets come from."""

    def open(
        self, path: str, headers: Mapping[str, str], *, slowly: bool = False
    ) -> contextlib.AbstractContextManager[Body]:
        """Request a path below the server's address.

        Args:
            path: as the server has it.
            headers: to send.
            slowly: the body will be read with pauses, so little of it may be on its way at once.

        Raises:
            ServerUnreachableError: no answer.
            ServerRefusedError: an answer that is not 200 or 206.
        """


class DeviceTokens:
    """Signs the short-lived tokens with which the device asks over HTTPS.

    A token serves for half of its life, so that the server has to verify few of them.
    """

    def __init__(self, *, device_id: str, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._device_id = device_id
        self._clock = clock
        self.use(key)

    def use(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Sign with this key from now on."""
        self._newest = ("", 0)
        self._key = ECKey.import_key(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def token(self) -> str:
        """Return a token (JWT, ES256)."""
        token, issued_s = self._newest
        now_s = self._clock.now_ms() // 1000
        if not 0 <= now_s - issued_s < DEVICE_TOKEN_LIFETIME_S // 2:
            token = self._signed(now_s)
            self._newest = (token, now_s)
        return token

    def _signed(self, issued_s: int) -> str:
        claims = {
            "sub": self._device_id,
            "aud": DEVICE_AUDIENCE,
            "iat": issued_s,
            "exp": issued_s + DEVICE_TOKEN_LIFETIME_S,
        }
        return jwt.encode({"alg": "ES256"}, claims, self._key)


class FleetServer:
    """The real server."""

    def __init__(
        self,
        *,
        url: str,
        tls: ssl.SSLContext,
        tokens: DeviceTokens,
        head_timeout_s: float = _HEAD_TIMEOUT_S,
        min_bytes_per_s: int = _MIN_BYTES_PER_S,
    ) -> None:
        """Connect to nothing yet; a body that comes more slowly than that is given up."""
        self._min_bytes_per_s = min_bytes_per_s
        self._url = url
        self._tokens = tokens
        self._fast = _pool(tls, head_timeout_s, options=[])
        # What the kernel takes in ahead of us is on the wire already, whatever we allow ourselves.
        small = (socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        self._slow = _pool(tls, head_timeout_s, options=[small])
        self._open: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(
        self, path: str, headers: Mapping[str, str], *, slowly: bool = False
    ) -> Iterator[Body]:
        """Request a path below the server's address.

        Raises:
            ServerUnreachableError: no answer.
            ServerRefusedError: an answer that is not 200 or 206.
        """
        url = self._url + quote(path)
        request_id = secrets.token_hex(8)
        try:
            response = (self._slow if slowly else self._fast).request(
                "GET",
                url,
                headers={
                    "Authorization": f"Bearer {self._tokens.token()}",
                    "Accept-Encoding": "identity",
                    "X-Request-Id": request_id,
                    **headers,
                },
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServerUnreachableError(f"cannot reach {self._url}: {error}") from error
        with self._lock:
            self._open.add(response)
        try:
            if response.status not in {200, 206}:
                raise ServerRefusedError(
                    f"{self._url} answered {path} with status {response.status} "
                    f"(request {request_id})",
                    status=response.status,
                )
            yield _HttpBody(
                response,
                _file_bytes(response, path, headers.get("Range")),
                min_bytes_per_s=self._min_bytes_per_s,
            )
        finally:
            with self._lock:
                self._open.discard(response)
            response.close()

    def post(self, path: str, body: bytes, *, tokens: DeviceTokens | None = None) -> bytes:
        """Send JSON to a path below the server's address and return the answer's body.

        Args:
            path: of a route of the device API.
            body: JSON.
            tokens: sign with another key than the present one.

        Raises:
            ServerUnreachableError: no answer.
            ServerRefusedError: an answer that is neither 200 nor 204.
        """
        token = (tokens or self._tokens).token()
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        try:
            response = self._fast.request(
                "POST",
                self._url + quote(path),
                body=body,
                headers=headers,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            with response:
                answer = response.read(MAX_MESSAGE_BYTES + 1)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServerUnreachableError(f"cannot reach {self._url}: {error}") from error
        if response.status not in {200, 204}:
            detail = answer[:500].decode(errors="replace")
            raise ServerRefusedError(
                f"{self._url} answered {path} with status {response.status}: {detail}",
                status=response.status,
            )
        return answer

    def abort(self) -> None:
        """Break off every answer that is being read, so that their threads end."""
        with self._lock:
            for response in self._open:
                with contextlib.suppress(ValueError, RuntimeError, OSError):
                    response.shutdown()


def _pool(
    tls: ssl.SSLContext, head_timeout_s: float, *, options: list[tuple[int, int, int]]
) -> urllib3.PoolManager:
    class Connection(HTTPSConnection):
        def getresponse(  # type: ignore[override]  # urllib3 narrows it in the same way
            self,
        ) -> urllib3.HTTPResponse:
            with _ended_after(head_timeout_s, self.sock):
                return super().getresponse()

    class Pool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Connection

    pool = urllib3.PoolManager(
        ssl_context=tls,
        retries=False,
        maxsize=2,
        timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        socket_options=[*HTTPSConnection.default_socket_options, *options],
    )
    pool.pool_classes_by_scheme = {"https": Pool}
    return pool


@contextlib.contextmanager
def _ended_after(seconds: float, sock: socket.socket) -> Iterator[None]:
    """End a connection on which the block takes longer, however steadily something trickles in.

    Raises:
        ConnectionAbortedError: it did; what it returned is cut off and may look complete.
    """
    ended = threading.Event()

    def end() -> None:
        ended.set()
        with contextlib.suppress(OSError):
            # That of the plain socket: the one of TLS takes the session from under the reader.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if ended.is_set():
        raise ConnectionAbortedError(f"the head of the answer did not come within {seconds:g} s")


def _file_bytes(response: urllib3.BaseHTTPResponse, path: str, asked: str | None) -> int | None:
    """Return how large the file of an answer is.

    Raises:
        UnfitAnswerError: the answer is to another request.
    """
    try:
        return stated_bytes(response.status, response.headers, asked=asked)
    except ValueError as error:
        raise UnfitAnswerError(f"the answer to {path} is {error}") from error


class _HttpBody:
    def __init__(
        self, response: urllib3.BaseHTTPResponse, file_bytes: int | None, *, min_bytes_per_s: int
    ) -> None:
        self._response = response
        self._min_bytes_per_s = min_bytes_per_s
        self.file_bytes = file_bytes

    @property
    def status(self) -> int:
        return self._response.status

    def chunks(self) -> Iterator[bytes]:
        """Yield what has arrived, as it arrives.

        A server that hands out a byte now and then (slow retrieval) is left: only the time spent
        waiting counts, so that a reader may take its time. Nothing collects a full chunk first,
        which would hide the trickle from the reader and keep it from breaking off.
        """
        pace = _Pace(self._min_bytes_per_s)
        try:
            while chunk := self._timed(pace):
                yield chunk
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise ServerUnreachableError(f"the server broke off: {error}") from error

    def _timed(self, pace: "_Pace") -> bytes:
        began_s = time.monotonic()
        chunk = self._response.read1(_CHUNK_BYTES, decode_content=False)
        pace.keep(len(chunk), waited_s=time.monotonic() - began_s)
        return chunk


class _Pace:
    """How much arrived while a body was waited for."""

    def __init__(self, min_bytes_per_s: int) -> None:
        self._min_bytes_per_s = min_bytes_per_s
        self._waited_s = 0.0
        self._bytes = 0

    def keep(self, count: int, *, waited_s: float) -> None:
        """Count a piece.

        Raises:
            ServerTooSlowError: too little arrives.
        """
        self._bytes += count
        self._waited_s += waited_s
        if self._waited_s < _PACE_S:
            return
        if self._bytes < self._waited_s * self._min_bytes_per_s:
            raise ServerTooSlowError(
                f"the server sent {self._bytes} bytes in {self._waited_s:.0f} s; "
                f"less than {self._min_bytes_per_s} a second is not waited for"
            )
        self._waited_s, self._bytes = 0.0, 0

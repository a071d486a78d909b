"""HTTPS to the fleet server: pinned authority, a fresh device token for each request, bounds.

No redirect is followed and no proxy variable is read: the address comes from the enrolment and the
token is for that server alone.
"""

import contextlib
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Protocol
from urllib.parse import quote

import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from edge_agent.control.clock import Clock
from edge_agent.errors import AgentError
from fleet_protocol.claims import DEVICE_AUDIENCE, DEVICE_TOKEN_LIFETIME_S

METADATA_ROUTE = "/device/v1/repository/metadata/"
TARGETS_ROUTE = "/device/v1/repository/targets/"

_CHUNK_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 15.0


class ServerUnreachableError(AgentError):
    """The server could not be asked, or broke off; the same request may succeed later."""


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
        """HTTP status, 200 or 206."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the body.

        Raises:
            ServerUnreachableError: the connection broke.
        """


class ReleaseServer(Protocol):
    """Where TUF metadata and targets come from."""

    def open(
        self, path: str, headers: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[Body]:
        """Request a path below the server's address.

        Raises:
            ServerUnreachableError: no answer.
            ServerRefusedError: an answer that is not 200 or 206.
        """


class DeviceTokens:
    """Signs the short-lived tokens with which the device asks over HTTPS."""

    def __init__(self, *, device_id: str, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._device_id = device_id
        self._clock = clock
        self._key = ECKey.import_key(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def token(self) -> str:
        """Return a token for one request (JWT, ES256)."""
        issued_s = self._clock.now_ms() // 1000
        claims = {
            "sub": self._device_id,
            "aud": DEVICE_AUDIENCE,
            "iat": issued_s,
            "exp": issued_s + DEVICE_TOKEN_LIFETIME_S,
        }
        return jwt.encode({"alg": "ES256"}, claims, self._key)


class FleetServer:
    """The real server."""

    def __init__(self, *, url: str, tls: ssl.SSLContext, tokens: DeviceTokens) -> None:
        self._url = url
        self._tokens = tokens
        self._http = urllib3.PoolManager(
            ssl_context=tls,
            retries=False,
            maxsize=2,
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        )
        self._open: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, path: str, headers: Mapping[str, str]) -> Iterator[Body]:
        """Request a path below the server's address.

        Raises:
            ServerUnreachableError: no answer.
            ServerRefusedError: an answer that is not 200 or 206.
        """
        url = self._url + quote(path)
        try:
            response = self._http.request(
                "GET",
                url,
                headers={
                    "Authorization": f"Bearer {self._tokens.token()}",
                    "Accept-Encoding": "identity",
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
                    f"{self._url} answered {path} with status {response.status}",
                    status=response.status,
                )
            yield _HttpBody(response)
        finally:
            with self._lock:
                self._open.discard(response)
            response.close()

    def abort(self) -> None:
        """Break off every answer that is being read, so that their threads end."""
        with self._lock:
            for response in self._open:
                with contextlib.suppress(ValueError, RuntimeError, OSError):
                    response.shutdown()


class _HttpBody:
    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    def chunks(self) -> Iterator[bytes]:
        try:
            yield from self._response.stream(_CHUNK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServerUnreachableError(f"the server broke off: {error}") from error

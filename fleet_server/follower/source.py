"""Asks the fleet server over HTTPS; what comes back is bounded and not believed yet."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import urllib3
from urllib3.response import BaseHTTPResponse

from fleet_server.broker.told import MAX_TOLD_BYTES, ROUTE, Told
from fleet_server.errors import (
    MalformedError,
    NotPermittedError,
    SetupError,
    TooLargeError,
    UnavailableError,
)
from signing_keys import token_files

_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
_ANSWER_WITHIN_S = 30.0
_CHUNK_BYTES = 256 * 1024
_MAX_REFUSAL_BYTES = 64 * 1024
_OK, _NOT_MODIFIED, _NOT_AUTHENTICATED, _NOT_PERMITTED = 200, 304, 401, 403


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer.

    Attributes:
        told: what holds now; None if that is what was fetched before.
        etag: names it.
    """

    told: Told | None
    etag: str


class Source:
    """The route of one server; token and CA are read anew each time, so both may be replaced."""

    def __init__(self, *, server: str, token_file: Path, ca: Path) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            SetupError: the address is not an HTTPS one.
        """
        parts = urlsplit(server)
        if parts.scheme != "https" or not parts.hostname:
            raise SetupError(f"{server!r} is not the address of a fleet server: https://HOST:PORT")
        self._server = server.rstrip("/")
        self._token_file = token_file
        self._ca = ca

    def fetch(self, etag: str | None) -> Fetched:
        """Return what holds now, if it is not what an etag names.

        Raises:
            SigningKeyError: the token's file cannot be used.
            SetupError: there is no CA to believe.
            UnavailableError: no answer, none that is whole, or the server is not able to.
            NotPermittedError: the token is not known, has expired, or may not ask this.
            TooLargeError, MalformedError: the answer is none of a fleet server.
        """
        headers = {"Authorization": f"Bearer {token_files.read(self._token_file)}"}
        if etag is not None:
            headers["If-None-Match"] = etag
        if not self._ca.is_file():
            raise SetupError(f"there is no CA file {self._ca}: copy public/fleet-ca.crt")
        with urllib3.PoolManager(ca_certs=str(self._ca), timeout=_TIMEOUT, retries=False) as pool:
            try:
                answer = pool.request(
                    "GET",
                    self._server + ROUTE,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                return self._read(answer, etag)
            except urllib3.exceptions.SSLError as error:
                raise UnavailableError(
                    f"the certificate of {self._server} is not trusted by {self._ca}: {error}"
                ) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise UnavailableError(f"{self._server} does not answer: {error}") from error

    def _read(self, answer: BaseHTTPResponse, etag: str | None) -> Fetched:
        if answer.status == _NOT_MODIFIED and etag is not None:
            return Fetched(None, etag)
        if answer.status != _OK:
            raise self._refusal(answer)
        content = _bounded(answer, MAX_TOLD_BYTES)
        try:
            told = msgspec.json.decode(content, type=Told)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedError(f"{self._server} does not speak as expected: {error}") from error
        return Fetched(told, answer.headers.get("ETag", ""))

    def _refusal(self, answer: BaseHTTPResponse) -> Exception:
        try:
            said = json.loads(_bounded(answer, _MAX_REFUSAL_BYTES))["detail"]
        except (ValueError, TypeError, KeyError, RecursionError, TooLargeError):
            said = f"status {answer.status}"
        text = f"{self._server} refuses: {str(said)[:500]}"
        if answer.status in {_NOT_AUTHENTICATED, _NOT_PERMITTED}:
            return NotPermittedError(
                f"{text}. It needs a token of `skerry server token --role broker`"
            )
        return UnavailableError(text)


def _bounded(answer: BaseHTTPResponse, most: int) -> bytes:
    """Return a body, and no more of it than its bound, however slowly it comes."""
    deadline = time.monotonic() + _ANSWER_WITHIN_S
    content = bytearray()
    for chunk in answer.stream(_CHUNK_BYTES, decode_content=False):
        content += chunk
        if len(content) > most:
            raise TooLargeError(f"the answer is longer than {most} bytes", limit_bytes=most)
        if time.monotonic() > deadline:
            raise UnavailableError(f"the answer did not end within {_ANSWER_WITHIN_S:.0f} s")
    return bytes(content)

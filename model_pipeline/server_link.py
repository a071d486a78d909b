"""HTTPS to the fleet server as a publisher: one authority believed, one token, clear refusals."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from model_pipeline.errors import PipelineError

_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 600.0
"""For an upload's answer: the server hashes gigabytes before it says anything."""
_CHUNK_BYTES = 256 * 1024
_MAX_ANSWER_BYTES = 64 * 1024
_OK = range(200, 300)
_CONTRADICTED = (409, 422)


class ServerError(PipelineError):
    """The server cannot be reached or refuses."""


class ContradictedError(ServerError):
    """The server refuses because of what it holds: another release may have come first."""


class Body(Protocol):
    """What is uploaded: pieces whose total length is known beforehand."""

    @property
    def content_type(self) -> str:
        """Value of the header."""
        ...

    @property
    def length(self) -> int:
        """Bytes in all."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Whom to trust and as whom to speak.

    Attributes:
        ca_file: certificate authority of the server; no other is believed.
        token: bearer token with the role publisher.
    """

    ca_file: Path
    token: str


class ServerLink:
    """A connection to one server."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        """Prepare the link; nothing is sent yet.

        Raises:
            PipelineError: the URL is not ``https://host[:port]``, or the CA file is unusable.
        """
        self.url = _checked(url)
        try:
            context = ssl.create_default_context(cafile=str(credentials.ca_file))
        except OSError as error:
            raise PipelineError(
                f"cannot use the server's certificate authority {credentials.ca_file}: {error}"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._headers = {"Authorization": f"Bearer {credentials.token}"}
        self._pool = urllib3.PoolManager(ssl_context=context)

    def download(self, path: str) -> Iterator[bytes]:
        """Yield the content at a path of the server.

        Raises:
            DownloadHTTPError: the server answers with an error.
            ServerError: it cannot be reached.
        """
        response = self._request("GET", path, timeout_s=_READ_TIMEOUT_S)
        if response.status not in _OK:
            raise DownloadHTTPError(self._refusal(response), response.status)
        return self._stream(response)

    def upload(self, path: str, body: Body) -> None:
        """Send a body and wait until the server has accepted it.

        Raises:
            ContradictedError: what the server holds contradicts it (409, 422).
            ServerError: it refuses otherwise, or cannot be reached.
        """
        response = self._request("POST", path, timeout_s=_ANSWER_TIMEOUT_S, body=body)
        if response.status in _CONTRADICTED:
            raise ContradictedError(self._refusal(response))
        if response.status not in _OK:
            raise ServerError(self._refusal(response))
        response.drain_conn()

    def _request(
        self, method: str, path: str, *, timeout_s: float, body: Body | None = None
    ) -> urllib3.BaseHTTPResponse:
        headers = dict(self._headers)
        if body is not None:
            headers |= {"Content-Type": body.content_type, "Content-Length": str(body.length)}
        try:
            return self._pool.request(
                method,
                self.url + path,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=timeout_s),
                preload_content=False,
                redirect=False,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def _stream(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(_CHUNK_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from error
        finally:
            response.release_conn()

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> str:
        """Return the server's own sentence, or its status where it says nothing."""
        try:
            answer = json.loads(response.read(_MAX_ANSWER_BYTES))
            detail = str(answer["detail"])
        except (ValueError, TypeError, LookupError, urllib3.exceptions.HTTPError):
            detail = f"status {response.status} {response.reason or ''}".strip()
        finally:
            response.release_conn()
        return f"{self.url} refuses: {detail}"

    def _unreachable(self, error: Exception) -> ServerError:
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in error.args):
            return ServerError(
                f"{self.url} shows no certificate of this authority ({error}); is it the right "
                "server, and is its name or address among those of `skerry provision init "
                "--server-name`?"
            )
        return ServerError(
            f"cannot reach {self.url}: {error}; is the server running, and is the address right?"
        )


class MetadataFetcher(FetcherInterface):
    """What python-tuf downloads metadata with."""

    def __init__(self, link: ServerLink) -> None:
        """Take the link that is used for everything."""
        self._link = link

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            return self._link.download(url.removeprefix(self._link.url))
        except ServerError as error:
            raise DownloadError(str(error)) from error


def _checked(url: str) -> str:
    parts = urlsplit(url)
    try:
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise PipelineError(
            f"{url[:200]!r} is not the address of a server: give https://HOST:PORT without a path"
        )
    return f"https://{parts.netloc}"

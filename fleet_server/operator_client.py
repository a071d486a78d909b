"""The operator's side of the API: HTTPS requests and answers, no server code."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse

from fleet_server.errors import FleetError

_TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)
_PAGE = 500
_CHUNK_BYTES = 65_536
_NO_CONTENT = 204
_REFUSED = 400


class ApiError(FleetError):
    """The server refused, or did not answer.

    Attributes:
        status: of the answer; None if there was none.
    """

    def __init__(self, message: str, *, status: int | None) -> None:
        super().__init__(message)
        self.status = status


def part(name: str) -> str:
    """Return a name as one part of a path, whatever a person wrote."""
    return quote(name, safe="")


class OperatorClient:
    """Talks to one server with one token, or without any where nobody has one yet."""

    def __init__(self, *, server: str, token: str | None, ca: Path | None) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            ApiError: the address is not an HTTPS one, or the CA file is absent.
        """
        parts = urlsplit(server)
        if parts.scheme != "https" or not parts.hostname:
            raise ApiError(
                f"{server!r} is not the address of a fleet server: use https://HOST:PORT",
                status=None,
            )
        if ca is not None and not ca.is_file():
            raise ApiError(f"there is no CA file {ca}", status=None)
        self._server = server.rstrip("/")
        self._pool = urllib3.PoolManager(
            ca_certs=str(ca) if ca else None,
            timeout=_TIMEOUT,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            retries=False,
        )

    def get(
        self,
        path: str,
        fields: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return the JSON of a route.

        Args:
            path: of the route.
            fields: of the query; those that are None are left out.
            timeout_s: how long to wait for connection and answer each, if not as ever.

        Raises:
            ApiError: no answer, or a refusal.
        """
        timeout = _TIMEOUT if timeout_s is None else urllib3.Timeout(timeout_s, timeout_s)
        query = {name: str(value) for name, value in (fields or {}).items() if value is not None}
        return self._request("GET", path, fields=query, timeout=timeout)

    def put(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Send JSON to a route and return its answer.

        Raises:
            ApiError: no answer, or a refusal.
        """
        return self._request("PUT", path, json=body)

    def patch(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Send a change as JSON to a route and return its answer.

        Raises:
            ApiError: no answer, or a refusal.
        """
        return self._request("PATCH", path, json=body)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Call a route, with JSON if it takes any.

        Raises:
            ApiError: no answer, or a refusal.
        """
        return self._request("POST", path, **({} if body is None else {"json": body}))

    def delete(self, path: str) -> None:
        """Remove what a route names.

        Raises:
            ApiError: no answer, or a refusal.
        """
        self._request("DELETE", path)

    def download(self, path: str) -> bytes:
        """Return the bytes of a route.

        Raises:
            ApiError: no answer, or a refusal.
        """
        response = self._asked("GET", path)
        if response.status >= _REFUSED:
            raise self._refusal(response, _content(response))
        return response.data

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a route as they come; an answer that is cut off is an error.

        Raises:
            ApiError: no answer, a refusal, or the connection broke.
        """
        response = self._asked("GET", path, preload_content=False)
        try:
            if response.status >= _REFUSED:
                raise self._refusal(response, _content(response))
            yield from response.stream(_CHUNK_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"{self._server} broke off its answer: {error}", status=None) from error
        finally:
            response.release_conn()

    def pages(
        self,
        path: str,
        key: str,
        fields: Mapping[str, object] | None = None,
        *,
        most: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page.

        Args:
            path: of the route.
            key: what the API calls the items.
            fields: of the query; those that are None are left out.
            most: items at the most; None for all.

        Raises:
            ApiError: no answer, or a refusal.
        """
        after, left = None, most
        while left is None or left > 0:
            limit = _PAGE if left is None else min(left, _PAGE)
            page = self.get(path, {**(fields or {}), "limit": limit, "after": after})
            yield from page[key]
            if left is not None:
                left -= len(page[key])
            if (after := page["next_after"]) is None:
                return

    def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 (handed on as it is)
        response = self._asked(method, path, **options)
        if response.status == _NO_CONTENT:
            return {}
        content = _content(response)
        if response.status >= _REFUSED:
            raise self._refusal(response, content)
        if not isinstance(content, dict):
            raise ApiError(
                f"{self._server}{path} does not speak like a fleet server", status=response.status
            )
        return content

    def _asked(self, method: str, path: str, **options: Any) -> BaseHTTPResponse:  # noqa: ANN401 (handed on as it is)
        try:
            return self._pool.request(method, self._server + path, **options)
        except urllib3.exceptions.SSLError as error:
            raise ApiError(
                f"the server's certificate is not trusted: {error}; pass the fleet's CA with --ca",
                status=None,
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"{self._server} does not answer: {error}", status=None) from error

    def _refusal(self, response: BaseHTTPResponse, content: object) -> ApiError:
        detail = content.get("detail") if isinstance(content, dict) else None
        return ApiError(
            str(detail or f"{self._server} answered {response.status}"), status=response.status
        )


def _content(response: BaseHTTPResponse) -> object:
    try:
        content: object = json.loads(response.data)
    except ValueError:
        return None
    return content

"""The one place where an error becomes an HTTP answer.

Every refusal is ``{"code": ..., "detail": ..., "request_id": ...}``: a stable word for programs, a
sentence for people, and what to look for in the log if the request came far enough to have an id.
"""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fleet_protocol.errors import ProtocolError, SkerryError
from fleet_server.errors import (
    ConflictError,
    MalformedError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
    StorageFullError,
    ThrottledError,
    TooLargeError,
    UnavailableError,
)
from fleet_server.logs import request_id

logger = logging.getLogger(__name__)

_MAX_LISTED_PROBLEMS = 5
_MAX_SHOWN_PATH = 200
_MAX_DETAIL = 2000
_PYDANTIC_PREFIX = "Value error, "
_NOT_AN_OBJECT = frozenset({"model_attributes_type", "dict_type", "model_type"})
"""What pydantic calls a body that is text, or a list, where an object should be."""

_NOT_JSON = "json_invalid"
_LENGTHS = frozenset({"too_long", "too_short"})
_ITEMS = re.compile(r"item(?=s? after validation)")
"""What pydantic calls the characters of a text whose length is looked at after its form."""

_DATETIME = "datetime_"
_UNREADABLE_BODY = "There was an error parsing the body"
"""FastAPI, of a body that is no text."""

STATUS: Mapping[type[SkerryError], tuple[int, str]] = {
    MalformedError: (400, "malformed"),
    ProtocolError: (400, "malformed"),
    NotAuthenticatedError: (401, "not_authenticated"),
    NotPermittedError: (403, "not_permitted"),
    NotFoundError: (404, "not_found"),
    ConflictError: (409, "conflict"),
    TooLargeError: (413, "too_large"),
    RefusedError: (422, "refused"),
    ThrottledError: (429, "throttled"),
    UnavailableError: (503, "unavailable"),
    StorageFullError: (507, "storage_full"),
}

_CODES = {400: "malformed", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(SkerryError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _from_framework)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


def answer(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return a refusal in the one shape that all have.

    What the sentence quotes of a request is neither long nor able to move a terminal's cursor.
    """
    body = {"code": code, "detail": _printable(detail[:_MAX_DETAIL])}
    current = request_id.get()
    if current is not None:
        body["request_id"] = current
    return JSONResponse(body, status, dict(headers or {}))


def _printable(text: str) -> str:
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


async def _expected(_request: Request, error: Exception) -> JSONResponse:
    for kind in type(error).__mro__:
        if kind in STATUS:
            status, code = STATUS[kind]
            break
    else:
        logger.error("unmapped_error", exc_info=error)
        return answer(500, "internal", str(error))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("request_not_served", extra={"status": status, "reason": str(error)[:500]})
    headers: dict[str, str] = {}
    if isinstance(error, NotAuthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnavailableError | ThrottledError):
        headers["Retry-After"] = str(error.retry_after_s)
    return answer(status, code, str(error), headers)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    listed = "; ".join(_said(problem) for problem in problems[:_MAX_LISTED_PROBLEMS])
    return answer(422, "invalid", listed or "the request does not have the form of this route")


def _said(problem: Mapping[str, Any]) -> str:
    """Return one of pydantic's findings as a sentence about a field."""
    kind, where = problem["type"], ".".join(str(part) for part in problem["loc"])
    if kind in _NOT_AN_OBJECT and where == "body":
        return "body: it must be a JSON object, sent as Content-Type: application/json"
    if kind == _NOT_JSON:
        reason = (problem.get("ctx") or {}).get("error", "it ends too early")
        return f"body: it is not JSON: {reason} (at character {problem['loc'][-1]})"
    said = str(problem["msg"]).removeprefix(_PYDANTIC_PREFIX)
    if kind in _LENGTHS and isinstance(problem.get("input"), str):
        said = _ITEMS.sub("character", said)
    if kind.startswith(_DATETIME):
        said += "; write it like 2026-05-31T12:00:00Z"
    return f"{where}: {said}"


async def _from_framework(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return await _unexpected(request, error)
    detail, path = str(error.detail), request.url.path[:_MAX_SHOWN_PATH]
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {path}; /api/v1/openapi.json lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{path} takes {allowed}, not {request.method}"
    elif detail == _UNREADABLE_BODY:
        detail = "body: it cannot be read as JSON in UTF-8"
    code = _CODES.get(error.status_code, "http")
    return answer(error.status_code, code, detail, error.headers)


async def _gone(_request: Request, _error: Exception) -> JSONResponse:
    return answer(400, "malformed", "the request ended before its body was complete")


async def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    logger.error("request_failed", exc_info=error)
    return answer(500, "internal", "the server failed on this request; its log has the reason")

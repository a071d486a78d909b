"""The OpenAPI document, completed: refusals in their one shape, and the bodies that msgspec reads.

``python -m fleet_server.api_document FOLDER`` writes it, and the AsyncAPI document of the topics
beside it: into ``docs/api``, where a test holds both.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from fleet_protocol import async_document, command_answers, commands, messages
from fleet_server.broker import told
from fleet_server.commands.configurations import ConfigurationBody
from fleet_server.commands.schemas import CommandOrder

FILE_NAME = "openapi.json"

_REFERENCE = "#/components/schemas/{name}"
_WHY = {
    400: "Something in the request cannot be read; `detail` says what and where.",
    401: "Who asks did not prove who it is.",
    403: "The role of who asks does not permit it.",
    404: "What the path or the query names does not exist.",
    409: "The request contradicts what is stored.",
    413: "The body is too large.",
    422: "The request is well-formed and cannot be done; `detail` names the field and why.",
    429: "Too many attempts; try again later.",
    503: "A part that the request needs is down for now.",
    507: "The disk of the server is full.",
}
_BODIES: Mapping[tuple[str, str], type[msgspec.Struct]] = {
    ("post", "/device/v1/enroll"): messages.EnrollRequest,
    ("post", "/device/v1/certificate"): messages.RenewRequest,
    ("post", "/device/v1/certificate/confirm"): messages.ConfirmRequest,
    ("post", "/device/v1/authorities"): messages.AuthoritiesRequest,
    ("post", "/device/v1/answers"): command_answers.Answer,
    ("post", "/api/v1/commands"): CommandOrder,
    ("put", "/api/v1/configurations/{name}"): ConfigurationBody,
}
_ANSWERS: Mapping[tuple[str, str], type[msgspec.Struct]] = {
    ("post", "/device/v1/enroll"): messages.EnrollResponse,
    ("post", "/device/v1/certificate"): messages.RenewResponse,
    ("post", "/device/v1/authorities"): messages.Authorities,
    ("get", "/device/v1/commands"): commands.Mailbox,
    ("get", told.ROUTE): told.Told,
}
_FILES: Mapping[str, tuple[int, ...]] = {
    "/device/v1/assignment": (200, 204, 304),
    "/device/v1/repository/targets/{path}": (200, 206, 304, 416),
    "/device/v1/repository/deltas/{base}/{path}": (200, 202, 206, 304, 416),
    "/api/v1/commands/{command_id}/log": (200,),
    "/health/ready": (200, 503),
}
"""Successes beyond 200 of routes that answer with more than one status."""

_CHANGING = frozenset({"post", "put", "patch", "delete"})
_UPLOAD = ("post", "/api/v1/releases")


def install(app: FastAPI) -> None:
    """Let the application describe itself so."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = completed(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI documents it


def completed(app: FastAPI) -> dict[str, Any]:
    """Return the document of an application."""
    document = get_openapi(
        title=app.title, version=app.version, routes=app.routes, description=app.description
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for obsolete in ("HTTPValidationError", "ValidationError"):
        schemas.pop(obsolete, None)
    schemas["Refusal"] = _REFUSAL
    schemas |= _message_schemas()
    for path, method, operation in operations(document):
        _complete(path, method, operation)
    return document


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    key = (method, path)
    if key in _BODIES:
        schema = {"$ref": _REFERENCE.format(name=_BODIES[key].__name__)}
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    if key in _ANSWERS:
        schema = {"$ref": _REFERENCE.format(name=_ANSWERS[key].__name__)}
        responses["200"]["content"] = {"application/json": {"schema": schema}}
    for status in _FILES.get(path, ()):
        responses.setdefault(str(status), {"description": "See the description of the route."})
        responses[str(status)].pop("content", None)
    for status in _refusals(path, method, operation):
        if status not in _FILES.get(path, ()):
            schema = {"$ref": _REFERENCE.format(name="Refusal")}
            content = {"application/json": {"schema": schema}}
            responses[str(status)] = {"description": _WHY[status], "content": content}
    operation["responses"] = dict(sorted(responses.items()))


def _refusals(path: str, method: str, operation: Mapping[str, Any]) -> set[int]:
    """Return the statuses with which an operation may refuse."""
    if path == "/health/live":
        return {400}
    statuses = {400, 503}
    if operation.get("security") or path.startswith("/device/"):
        statuses |= {401}
    if operation.get("security") or path == "/device/v1/enroll":
        statuses |= {403}
    if operation.get("parameters") or path.startswith("/device/") or method in _CHANGING:
        statuses |= {404, 422}
    if path.startswith("/api/"):
        statuses |= {422}  # for a parameter that it does not have
    if method in _CHANGING:
        statuses |= {409, 413}
    if (method, path) == _UPLOAD:
        statuses |= {507}
    if not operation.get("security") and path.startswith("/api/"):
        statuses |= {401, 403, 404, 422, 429}  # where people prove who they are
    if path == "/device/v1/enroll" or (method, path) == ("post", "/api/v1/commands"):
        statuses |= {429}
    return statuses


def _message_schemas() -> dict[str, Any]:
    types = (*_BODIES.values(), *_ANSWERS.values())
    _, schemas = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    return {name: _ecmascript(schema) for name, schema in schemas.items()}


def _ecmascript(schema: Any) -> Any:  # noqa: ANN401 (JSON)
    r"""Return a schema whose patterns end as ECMA-262 knows it: ``\A`` and ``\Z`` are Python's."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\A", "^").replace(r"\Z", "$")
            if key == "pattern"
            else _ecmascript(value)
            for key, value in schema.items()
        }
    return [_ecmascript(each) for each in schema] if isinstance(schema, list) else schema


_REFUSAL = {
    "title": "Refusal",
    "description": "Why a request was not served.",
    "type": "object",
    "required": ["code", "detail"],
    "properties": {
        "code": {"type": "string", "description": "A stable word for programs."},
        "detail": {"type": "string", "description": "A sentence for people."},
    },
}


def encode(document: Mapping[str, Any]) -> str:
    """Return a document as it is committed."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write the documents of this version into the folder that is named."""
    from fleet_server.app import describe  # noqa: PLC0415 (the application imports this module)

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).write_text(encode(describe()))
    (folder / async_document.FILE_NAME).write_text(async_document.encode())


if __name__ == "__main__":
    main()

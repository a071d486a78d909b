"""The documents in docs/api are those of the code; `make documents` writes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from fleet_protocol import async_document, messages, topics
from fleet_protocol.topics import Channel
from fleet_server import api_document
from fleet_server import app as application
from fleet_server.app import describe
from fleet_server.telemetry import uplink

FOLDER = Path(__file__).parents[3] / "docs" / "api"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (api_document.FILE_NAME, lambda: api_document.encode(describe())),
        (async_document.FILE_NAME, async_document.encode),
    ],
)
def test_the_committed_document_is_the_codes(name: str, made: Callable[[], str]) -> None:
    committed = (FOLDER / name).read_text()
    assert committed == made(), f"docs/api/{name} is out of date: run `make documents`"


def test_no_route_is_left_out_of_the_document() -> None:
    app = FastAPI()
    application._add_routes(app)
    served = {
        (route.path_format, method.lower())
        for included in app.routes
        for route in getattr(included, "original_router", APIRouter()).routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    described = {(path, method) for path, method, _ in api_document.operations(describe())}
    assert served == described


def test_every_operation_says_how_it_refuses() -> None:
    for path, method, operation in api_document.operations(describe()):
        refusals = {status for status in operation["responses"] if status >= "4"}
        assert path == "/health/live" or {"400", "503"} <= refusals, (method, path)
        for status in refusals:
            content = operation["responses"][status].get("content")
            if content is not None:
                schema = content["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Refusal"}, (method, path, status)


def test_what_ingest_decodes_is_what_is_described() -> None:
    assert {channel: async_document.TYPES[channel] for channel in topics.UPLINK} == uplink._TYPES
    assert async_document.TYPES.keys() == set(Channel) - {Channel.ASSIGNMENT}
    described = async_document.document()
    assert described["channels"]["ack"]["address"] == "skerry/v1/{device_id}/ack"
    assert described["operations"]["reported"]["bindings"]["mqtt"] == {"qos": 1, "retain": True}
    assert set(messages.EventKind) == set(described["components"]["schemas"]["EventKind"]["enum"])

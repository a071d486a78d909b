"""A query parameter that a route of the operator API does not have is refused by its name."""

import asyncio
import re
from typing import TYPE_CHECKING, cast

import httpx

from fleet_server import api_document
from fleet_server.app import create_app, describe

if TYPE_CHECKING:
    from fleet_server.services import Services

CALLBACK = "/api/v1/oidc/callback"


async def _answers(wanted: list[tuple[str, str]], query: str) -> list[httpx.Response]:
    # What is refused comes to no service.
    app = create_app(cast("Services", None))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://fleet") as client:
        return [
            await client.request(method, re.sub(r"\{\w+\}", "1", path) + query)
            for path, method in wanted
        ]


def test_on_every_route() -> None:
    wanted = [
        (path, method)
        for path, method, _ in api_document.operations(describe())
        if path.startswith("/api/v1/") and path != CALLBACK
    ]
    assert len(wanted) > 60
    for place, answer in zip(wanted, asyncio.run(_answers(wanted, "?limt=5")), strict=True):
        assert answer.status_code == 422, place
        assert answer.json()["detail"].startswith("query.limt: there is no such parameter"), place


def test_it_says_which_there_are() -> None:
    (answer,) = asyncio.run(_answers([("/api/v1/commands", "get")], "?devise=a&state=open&x=1"))
    assert answer.json()["code"] == "invalid"
    assert answer.json()["detail"] == (
        "query.devise: there is no such parameter here, it has after, device, kind, limit, state; "
        "query.x: there is no such parameter here, it has after, device, kind, limit, state"
    )


def test_an_identity_provider_may_add_its_own() -> None:
    (answer,) = asyncio.run(_answers([(CALLBACK, "get")], "?iss=https://id.example&code=c"))
    assert answer.json()["detail"] == "query.state: Field required"

"""What a caller reads who asked for something that is not there, or asked in the wrong form."""

import asyncio
from datetime import datetime
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, Field, field_validator

from fleet_server import http_errors


class Order(BaseModel):
    count: int
    note: Annotated[str, AfterValidator(str.strip), Field(max_length=3)] = ""
    due: datetime | None = None

    @field_validator("count")
    @classmethod
    def _some(cls, count: int) -> int:
        if not count:
            raise ValueError("order at least one")
        return count


def _app() -> FastAPI:
    app = FastAPI()

    @app.post("/orders")
    def order(wanted: Order) -> int:
        return wanted.count

    http_errors.install(app)
    return app


async def _ask(method: str, path: str, body: object) -> httpx.Response:
    transport = httpx.ASGITransport(_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://fleet") as client:
        return await client.request(method, path, json=body)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/orders", "two", 422, "body: it must be a JSON object"),
        ("POST", "/orders", [2], 422, "body: it must be a JSON object"),
        ("POST", "/orders", {"count": "two"}, 422, "body.count: Input should be a valid integer"),
        ("POST", "/orders", {"count": 0}, 422, "body.count: order at least one"),
        (
            "POST",
            "/orders",
            {"count": 1, "note": "abcd"},
            422,
            "body.note: Value should have at most 3 ch",
        ),
        ("POST", "/order", {"count": 1}, 404, "there is nothing at /order;"),
        ("GET", "/orders", None, 405, "/orders takes POST, not GET"),
    ],
)
def test_the_answer_says_what_was_wrong_and_where(
    method: str, path: str, body: object, status: int, said: str
) -> None:
    answer = asyncio.run(_ask(method, path, body))
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(said)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"count": 1, "due": "soon"}', 422, "like 2026-05-31T12:00:00Z"),
        (b'{"count": 1', 422, "body: it is not JSON: Expecting ',' delimiter (at character 11)"),
        (b"\x22\xff\x22", 400, "body: it cannot be read as JSON in UTF-8"),
    ],
)
async def test_a_body_that_is_no_order(body: bytes, status: int, said: str) -> None:
    transport = httpx.ASGITransport(_app())
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="https://fleet") as client:
        answer = await client.post("/orders", content=body, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["detail"]

"""Requests that nothing should have sent: each is refused with what was wrong, on any database."""

import asyncio
import json
import re
from datetime import timedelta

import pytest
from fastapi import FastAPI

from fleet_server.accounts.roles import Role
from fleet_server.app import create_app
from fleet_server.database import Database
from fleet_server.http_errors import answer
from fleet_server.services import Services
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

ROOT = "a root that is one"
DEEP = '{"x":' * 20_000


@pytest.fixture
async def services(fleet: Fleet, database: Database) -> Services:
    return await wired(fleet, database)


async def admin(services: Services) -> dict[str, str]:
    made, _ = await services.accounts.create(
        name="ann", role=Role.ADMIN, lifetime=timedelta(hours=1)
    )
    return bearer(made)


def with_nul(app: FastAPI) -> list[tuple[str, str, str]]:
    """Return method, address and the parameter that has a NUL in it, of all routes."""
    found = []
    for template, item in app.openapi()["paths"].items():
        bare = re.sub(r"\{\w+\}", "x", template)
        for method, described in item.items():
            for each in described.get("parameters", ()):
                where, name = each["in"], each["name"]
                if where == "path":
                    path = template.replace(f"{{{name}}}", "a%00b")
                    found.append((method, re.sub(r"\{\w+\}", "x", path), f"path.{name}"))
                elif where == "query":
                    found.append((method, f"{bare}?{name}=a%00b", f"query.{name}"))
    return found


async def test_no_route_takes_nul_in_its_address(services: Services) -> None:
    headers = await admin(services)
    async with client_of(services) as client:
        asked = with_nul(create_app(services))
        assert len(asked) > 50
        for method, path, parameter in asked:
            refused = await client.request(method, path, headers=headers)
            assert refused.status_code in {400, 422}, (method, path, refused.text)
            assert parameter in refused.json()["detail"], (method, path, refused.text)


BODIES = [
    ("PUT", "groups/g", {"selector": "*", "description": "TEXT"}, "description"),
    ("POST", "login", {"name": "TEXT", "password": "a long password"}, "name"),
    ("POST", "rollouts", {"family": "TEXT", "version": "1.0.0"}, "family"),
    ("POST", "rollouts", {"family": "f", "version": "TEXT"}, "version"),
    ("POST", "rollouts", {"family": "f", "version": "1.0.0", "group": "TEXT"}, "group"),
    ("POST", "rollouts/1/pause", {"reason": "TEXT"}, "reason"),
    ("PUT", "assignments", {"family": "TEXT", "version": "1", "devices": None}, "family"),
    ("POST", "alert-silences", {"selector": "*", "ends_ms": 9, "reason": "TEXT"}, "reason"),
    ("POST", "alert-webhooks", {"name": "TEXT", "url": "https://example.org"}, "name"),
    ("POST", "trust/metadata", {"documents": ["TEXT"]}, "documents"),
]
"""Method, path, a body with the place of a text, and its field."""


@pytest.mark.parametrize("text", [rb"a\u0000b", rb"a\ud800b"], ids=["NUL", "half a pair"])
async def test_a_text_that_cannot_be_stored(services: Services, text: bytes) -> None:
    headers = await admin(services) | {"Content-Type": "application/json"}
    async with client_of(services) as client:
        for method, path, body, field in BODIES:
            content = json.dumps(body).encode().replace(b"TEXT", text)
            refused = await client.request(
                method, f"/api/v1/{path}", headers=headers, content=content
            )
            assert refused.status_code in {400, 422}, (path, refused.text)
            if path != "trust/metadata":  # whose documents are read, not stored as they came
                assert f"body.{field}" in refused.json()["detail"]


async def test_a_body_that_is_nested_without_end(services: Services) -> None:
    headers = await admin(services)
    async with client_of(services) as client:
        for method, path, content in (
            ("POST", "commands", f'{{"devices": ["cam-1"], "action": {DEEP}'),
            ("PUT", "configurations/c", f'{{"selector": {DEEP}'),
            ("POST", "rollouts", DEEP),
        ):
            refused = await client.request(
                method, f"/api/v1/{path}", headers=headers, content=content
            )
            assert refused.status_code in {400, 422}, refused.text


UNCLEAR = [
    ("PUT", "configurations/Big", {"settings": {}}, "path.name: use 1 to 64 of a-z, 0-9 and hy"),
    ("PUT", "configurations/c", {"selector": "*"}, "the configuration: `settings` is missing"),
    (
        "PUT",
        "configurations/c",
        {"settings": {"control": {"log_level": "loud"}}},
        "`settings.control.log_level` is 'loud'; there is debug, error, info, warning",
    ),
    (
        "POST",
        "commands",
        {"devices": ["A"], "action": {"kind": "logs"}},
        "the order: `devices[0]` must be a DNS label: a-z, 0-9, hyphens",
    ),
    (
        "POST",
        "tokens",
        {"name": "-", "role": "viewer", "lifetime_s": 9},
        "body.name: use 1 to 100 letters, digits, spaces and . _ @ -, with a letter or digit first",
    ),
    ("POST", "tokens", {"name": "a\n", "role": "viewer", "lifetime_s": 9}, "body.name: use 1 to"),
    (
        "PUT",
        "assignments",
        {
            "family": "f",
            "version": "1.0.0",
            "devices": None,
            "delivery": {"window": {"start": "2:30", "duration_minutes": 9}},
        },
        "body.delivery.window.start: use HH:MM in UTC, such as 02:30",
    ),
    (
        "POST",
        "trust/metadata",
        {"documents": [ROOT, "{}"]},
        "document 2 of 2 is not TUF metadata: `signed` is missing; send the files of",
    ),
    (
        "POST",
        "trust/metadata",
        {"documents": ["[]"]},
        "document 1 of 1 is not TUF metadata: its JSON has another shape; send",
    ),
]
"""Method, path, a body, and what its sender is told: which field, and what to write instead."""


async def test_a_refusal_says_which_field_and_what_to_write(
    fleet: Fleet, services: Services
) -> None:
    root = (fleet.authority.public / "release-root.json").read_text()
    headers = await admin(services) | {"Content-Type": "application/json"}
    async with client_of(services) as client:
        for method, path, body, said in UNCLEAR:
            content = json.dumps(body).replace(json.dumps(ROOT), json.dumps(root))
            refused = await client.request(
                method, f"/api/v1/{path}", headers=headers, content=content
            )
            assert refused.status_code in {400, 422}, (path, refused.text)
            assert said in refused.json()["detail"]
        refused = await client.post("/device/v1/enroll", json={"token": 1, "csr_pem": ""})
    assert refused.json()["detail"] == (
        "not an enroll request: `token` must be text, not a whole number"
    )


async def test_a_stray_slash_is_no_redirection(services: Services) -> None:
    """It would name the scheme and host that this process sees, not those of its proxy."""
    async with client_of(services) as client:
        refused = await client.get("/api/v1/devices/", headers=await admin(services))
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


def test_what_a_refusal_quotes_is_bounded_and_moves_no_cursor() -> None:
    body = bytes(answer(422, "invalid", "\x1b[2J\x00\ud800é" + "x" * 9000).body).decode()
    assert body.startswith('{"code":"invalid","detail":"\\\\x1b[2J\\\\x00\\\\ud800éxxx')
    assert len(body) < 2100


async def test_many_make_the_same_group_at_once(services: Services, database_url: str) -> None:
    headers = await admin(services)
    body = {"selector": "*"}
    async with client_of(services) as client:
        answers = await asyncio.gather(
            *(client.put("/api/v1/groups/g", json=body, headers=headers) for _ in range(8))
        )
    assert {each.status_code for each in answers} == {200}, database_url

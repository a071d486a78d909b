"""Logins at an OpenID Connect provider: a real one, in a process of its own on the loopback."""

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from sqlalchemy import update

from fleet_server.accounts import openid, throttle
from fleet_server.accounts.openid_settings import provider
from fleet_server.accounts.roles import Role
from fleet_server.accounts.tables import PendingLogin
from fleet_server.database import Database
from fleet_server.errors import SettingsError
from fleet_server.settings import ServerSettings
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

pytestmark = pytest.mark.usefixtures("quick_passwords")

PEOPLE = {
    "ann": ["fleet-admins", "fleet-viewers"],
    "bob": ["somebody else"],
    "eve": ["fleet-admins", "acme-ops"],
}
PROVIDER = Path(__file__).parents[2] / "simulators" / "pkce_provider.py"
COOKIE = "__Host-skerry-login"
CALLBACK = "https://fleet/api/v1/oidc/callback"


def settings_of(issuer: str) -> dict[str, object]:
    return {
        "oidc_issuer": issuer,
        "oidc_client_id": "skerry",
        "oidc_client_secret": "hunter2",
        "oidc_redirect_url": CALLBACK,
        "oidc_roles": "fleet-admins=admin, fleet-viewers=viewer, acme-ops=acme/operator",
    }


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    people = [json.dumps({"sub": name, "groups": groups}) for name, groups in PEOPLE.items()]
    log = tmp_path_factory.mktemp("provider") / "log"
    command = [sys.executable, str(PROVIDER), str(port), *people]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _await_port(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture
async def client(fleet: Fleet, database: Database, issuer: str) -> AsyncIterator[httpx.AsyncClient]:
    services = await wired(fleet, database, **settings_of(issuer))
    async with client_of(services) as made:
        yield made


async def at_the_provider(client: httpx.AsyncClient, person: str) -> dict[str, str]:
    """Log in at the provider; returns what it sends back with the browser."""
    begun = await client.get("/api/v1/oidc/login")
    assert begun.status_code == 303
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["nonce"]
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(begun.headers["location"], data={"sub": person})
    assert answer.headers["location"].startswith(CALLBACK)
    sent_back = parse_qs(urlsplit(answer.headers["location"]).query)
    return {"state": sent_back["state"][0], "code": sent_back["code"][0]}


async def test_claims_become_a_role_and_an_answer_counts_once(client: httpx.AsyncClient) -> None:
    answer = await at_the_provider(client, "ann")
    granted = await client.get("/api/v1/oidc/callback", params=answer)
    assert granted.status_code == 200, granted.text
    session = granted.json()
    assert (session["role"], session["tenant"]) == ("admin", "default")
    assert session["name"].startswith("oidc:ann@http://127.0.0.1:")
    headers = bearer(session["token"])
    assert (await client.get("/api/v1/users", headers=headers)).status_code == 200
    again = await client.get("/api/v1/oidc/callback", params=answer)
    assert (again.status_code, "begin anew" in again.text) == (400, True)
    assert granted.headers["cache-control"] == "no-store"


async def test_only_the_browser_that_began_can_finish(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await at_the_provider(client, "ann")
    secret = client.cookies.get(COOKIE)
    client.cookies.clear()
    for foreign in ({}, {COOKIE: ""}, {COOKIE: "guessed"}, {"skerry-login": str(secret)}):
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in foreign.items())}
        refused = await client.get("/api/v1/oidc/callback", params=answer, headers=headers)
        assert refused.status_code == 400, foreign
        assert "in this browser, at https://fleet/api/v1/oidc/login" in refused.json()["detail"]
    assert {(record.msg, record.outcome) for record in _warnings(caplog)} == {  # type: ignore[attr-defined]
        ("login_refused", "foreign_browser")
    }
    headers = {"Cookie": f"{COOKIE}={secret}"}  # what was refused has not used the login up
    granted = await client.get("/api/v1/oidc/callback", params=answer, headers=headers)
    assert granted.status_code == 200, granted.text
    assert f'{COOKIE}=""' in granted.headers["set-cookie"]
    used = await client.get("/api/v1/oidc/callback", params=answer, headers=headers)
    assert (used.status_code, "begin anew" in used.text) == (401, True)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.WARNING]


async def test_the_cookie_of_a_login(
    fleet: Fleet, database: Database, client: httpx.AsyncClient, issuer: str
) -> None:
    begun = await client.get("/api/v1/oidc/login")
    name, *attributes = begun.headers["set-cookie"].split("; ")
    assert name.startswith(f"{COOKIE}=")
    assert set(attributes) == {"HttpOnly", "Max-Age=600", "Path=/", "SameSite=lax", "Secure"}
    assert name.partition("=")[2] not in begun.headers["location"]
    plain = {"oidc_redirect_url": "http://localhost/api/v1/oidc/callback"}
    services = await wired(fleet, database, **settings_of(issuer) | plain)
    async with client_of(services) as local:
        kept = (await local.get("/api/v1/oidc/login")).headers["set-cookie"]
    assert kept.startswith("skerry-login=")
    assert "Secure" not in kept


async def test_an_address_cannot_begin_logins_without_end(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAX_PER_ADDRESS", 2)
    statuses = [(await client.get("/api/v1/oidc/login")).status_code for _ in range(3)]
    assert statuses == [303, 303, 429]


async def test_the_provider_refuses(client: httpx.AsyncClient) -> None:
    answer = await at_the_provider(client, "ann")
    sent = {"state": answer["state"], "error": "access_denied"}
    refused = await client.get("/api/v1/oidc/callback", params=sent)
    assert refused.status_code == 401
    assert "refuses this login: access_denied" in refused.json()["detail"]


def test_names_of_two_people_differ() -> None:
    assert openid.session_name("ann", "https://id.example") == "oidc:ann@https://id.example"
    names = {openid.session_name("x" * 200 + each, "https://id.example") for each in "ab"}
    assert {len(name) for name in names} == {100}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("person", "said"), [("bob", "means a role here"), ("eve", "in several tenants")]
)
async def test_who_is_not_meant_is_not_let_in(
    client: httpx.AsyncClient, person: str, said: str
) -> None:
    answer = await at_the_provider(client, person)
    refused = await client.get("/api/v1/oidc/callback", params=answer)
    assert (refused.status_code, said in refused.json()["detail"]) == (403, True)


@pytest.mark.parametrize("wrong", ["state", "code", "nonce", "code_verifier"])
async def test_an_answer_that_does_not_hold(
    client: httpx.AsyncClient, database: Database, wrong: str
) -> None:
    answer = await at_the_provider(client, "ann")
    if wrong in {"nonce", "code_verifier"}:
        async with database.writing() as session:
            await session.execute(update(PendingLogin).values({wrong: "of-another-login" * 4}))
    else:
        answer[wrong] = "foreign"
    refused = await client.get("/api/v1/oidc/callback", params=answer)
    assert refused.status_code == (400 if wrong == "state" else 401), refused.text
    if wrong == "code_verifier":
        assert "wrong verifier" in refused.json()["detail"]


async def test_the_provider_of_these_tests_insists_on_pkce(client: httpx.AsyncClient) -> None:
    address = urlsplit((await client.get("/api/v1/oidc/login")).headers["location"])
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    asked["code_challenge_method"] = "plain"
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(address._replace(query=urlencode(asked)).geturl())
    assert answer.status_code == 400


async def test_without_the_provider(fleet: Fleet, database: Database) -> None:
    down = await wired(fleet, database, **settings_of("http://127.0.0.1:1"))
    async with client_of(down) as client:
        assert (await client.get("/api/v1/oidc/login")).status_code == 503
    unset = await wired(fleet, database)
    async with client_of(unset) as client:
        assert (await client.get("/api/v1/oidc/login")).status_code == 404


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"oidc_client_secret": None}, "oidc_client_secret"),
        ({"oidc_roles": "admins"}, "'admins' is not VALUE=ROLE"),
        ({"oidc_roles": "admins=king"}, "viewer"),
    ],
)
def test_settings_of_a_provider(changes: dict[str, object], named: str) -> None:
    settings = ServerSettings.model_validate(settings_of("https://id.example") | changes)
    with pytest.raises(SettingsError, match=named):
        provider(settings)


def test_a_role_may_name_its_tenant() -> None:
    made = provider(ServerSettings.model_validate(settings_of("https://id.example")))
    assert made is not None
    assert made.roles["acme-ops"] == ("acme", Role.OPERATOR)

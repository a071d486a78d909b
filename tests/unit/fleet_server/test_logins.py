"""Logins, the first admin, users and scoped tokens, over the API."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import typer

from fleet_protocol.log_format import JsonFormatter
from fleet_server.accounts import throttle
from fleet_server.accounts.claim_cli import claim_admin
from fleet_server.accounts.first_admin import text as claim_text
from fleet_server.accounts.logins import CLAIM_LIFETIME, Logins
from fleet_server.accounts.wiring import wired as accounts_of
from fleet_server.database import Database
from fleet_server.errors import NotAuthenticatedError, ThrottledError
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORD = "correct horse battery"
ADDRESS = "192.0.2.1"


@pytest.fixture
def logins(database: Database, clock: FakeClock) -> Logins:
    return accounts_of(database, clock)[2]


async def first_admin(logins: Logins, name: str = "ann") -> str:
    claim = await logins.make_claim()
    grant = await logins.claim_admin(claim=claim, name=name, password=PASSWORD, address=ADDRESS)
    return grant.token


async def test_a_claim_makes_one_admin_once(logins: Logins) -> None:
    claim = await logins.make_claim()
    assert not await logins.has_users()
    outcomes = await asyncio.gather(
        *(
            logins.claim_admin(claim=claim, name=f"ann{n}", password=PASSWORD, address=ADDRESS)
            for n in range(3)
        ),
        return_exceptions=True,
    )
    refused = [each for each in outcomes if isinstance(each, NotAuthenticatedError)]
    assert (len(outcomes), len(refused)) == (3, 2)
    assert await logins.has_users()


def test_the_printed_command_can_be_given_as_it_stands() -> None:
    printed = claim_text("claim", port=8443).partition("skerry fleet claim-admin ")[2]
    app = typer.Typer()
    app.command()(claim_admin)
    context = typer.main.get_command(app).make_context("claim-admin", printed.split())
    assert context.params["name"] == "NAME"


async def test_a_claim_expires(logins: Logins, clock: FakeClock) -> None:
    claim = await logins.make_claim()
    clock.advance(seconds=CLAIM_LIFETIME.total_seconds())
    with pytest.raises(NotAuthenticatedError, match="used or expired"):
        await logins.claim_admin(claim=claim, name="ann", password=PASSWORD, address=ADDRESS)


async def test_guessing_is_limited_and_ends(logins: Logins, clock: FakeClock) -> None:
    await first_admin(logins)
    for _ in range(throttle.MAX_PER_ACCOUNT):
        with pytest.raises(NotAuthenticatedError, match="name or the password is wrong"):
            await logins.login(name="ann", password="wrong", address=ADDRESS)
    with pytest.raises(ThrottledError) as raised:
        await logins.login(name="ann", password=PASSWORD, address="192.0.2.99")
    assert 0 < raised.value.retry_after_s <= throttle.WINDOW.total_seconds() + 1
    clock.advance(seconds=raised.value.retry_after_s + 1)
    assert (await logins.login(name="ann", password=PASSWORD, address=ADDRESS)).name == "ann"


async def test_refused_logins_are_in_the_log_and_counted(
    logins: Logins, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await first_admin(logins)
    monkeypatch.setattr(throttle, "MAX_PER_ACCOUNT", 1)
    before = logins.watch.counts.copy()
    with pytest.raises(NotAuthenticatedError):
        await logins.login(name="eve\x1b[2J", password=PASSWORD, address=ADDRESS)
    with pytest.raises(ThrottledError):
        await logins.login(name="eve\x1b[2J", password=PASSWORD, address=ADDRESS)
    with pytest.raises(NotAuthenticatedError):
        await logins.claim_admin(claim="guess", name="eve", password=PASSWORD, address=ADDRESS)
    await logins.login(name="ann", password=PASSWORD, address=ADDRESS)
    lines = [JsonFormatter().format(record) for record in caplog.records]
    said = [line for line in map(json.loads, lines) if line["event"] == "login_refused"]
    assert {line["address"] for line in said} == {ADDRESS}
    assert [line["way"] for line in said] == ["password", "password", "claim"]
    assert [line["outcome"] for line in said] == ["wrong", "throttled", "wrong"]
    assert r"eve\u001b[2J" in "".join(lines)
    assert PASSWORD not in "".join(lines)
    assert logins.watch.counts - before == {
        ("password", "wrong"): 1,
        ("password", "throttled"): 1,
        ("password", "granted"): 1,
        ("claim", "wrong"): 1,
    }


async def test_one_address_cannot_try_many_names(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAX_PER_ADDRESS", 3)
    limited = throttle.LoginThrottle(database=database, clock=clock)
    for host in ("2001:db8::1", "2001:db8::2", "2001:db8::3"):
        await limited.count(account=f"user of {host}", address=host)
    with pytest.raises(ThrottledError):
        await limited.count(account="another", address="2001:db8::4")
    await limited.count(account="another", address="2001:db8:1::1")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
    ],
)
def test_what_counts_as_one_address(address: str, counted: str) -> None:
    assert throttle.network(address) == counted


@pytest.fixture
async def client(fleet: Fleet, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    services = await wired(fleet, database)
    token = await first_admin(services.logins)
    async with client_of(services) as made:
        made.headers.update(bearer(token))
        yield made


async def log_in(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/api/v1/login", json={"name": name, "password": password})


async def test_a_user_logs_in_changes_the_password_and_is_logged_out(
    client: httpx.AsyncClient,
) -> None:
    user = {"name": "bob", "role": "viewer", "password": PASSWORD}
    assert (await client.post("/api/v1/users", json=user)).status_code == 201
    assert (await client.post("/api/v1/users", json=user)).status_code == 409
    one = (await client.get("/api/v1/users/bob")).json()
    assert (one["name"], one["role"], set(one)) == ("bob", "viewer", {"name", "role", "created_ms"})
    assert (await client.get("/api/v1/users/eve")).status_code == 404
    session = bearer((await log_in(client, "bob")).json()["token"])
    shown = (await client.get("/api/v1/account", headers=session)).json()
    assert (shown["name"], shown["role"], shown["permissions"]) == ("bob", "viewer", ["read"])
    change = {"current": "wrong", "new": PASSWORD + "!"}
    refused = await client.post("/api/v1/account/password", json=change, headers=session)
    assert refused.status_code == 401
    change["current"] = PASSWORD
    changed = await client.post("/api/v1/account/password", json=change, headers=session)
    assert changed.status_code == 204
    assert (await client.get("/api/v1/account", headers=session)).status_code == 401
    assert (await log_in(client, "bob")).status_code == 401
    session = bearer((await log_in(client, "bob", PASSWORD + "!")).json()["token"])
    assert (await client.post("/api/v1/account/logout", headers=session)).status_code == 204
    assert (await client.get("/api/v1/account", headers=session)).status_code == 401


@pytest.mark.parametrize("how", ["role", "removal"])
async def test_who_loses_a_role_loses_the_session(client: httpx.AsyncClient, how: str) -> None:
    user = {"name": "bob", "role": "admin", "password": PASSWORD}
    await client.post("/api/v1/users", json=user)
    session = bearer((await log_in(client, "bob")).json()["token"])
    assert (await client.get("/api/v1/users", headers=session)).status_code == 200
    if how == "role":
        await client.patch("/api/v1/users/bob", json={"role": "viewer"})
    else:
        assert (await client.delete("/api/v1/users/bob")).status_code == 204
        assert (await log_in(client, "bob")).status_code == 401
    assert (await client.get("/api/v1/users", headers=session)).status_code == 401


async def test_a_token_is_limited_to_its_scope_and_can_be_taken_back(
    client: httpx.AsyncClient,
) -> None:
    wanted = {"name": "ci", "role": "operator", "lifetime_s": 3600, "scope": ["read"]}
    made = (await client.post("/api/v1/tokens", json=wanted)).json()
    mine = bearer(made["token"])
    assert (await client.get("/api/v1/devices", headers=mine)).status_code == 200
    refused = await client.put(
        "/api/v1/groups/g", json={"selector": "a=b", "description": ""}, headers=mine
    )
    assert (refused.status_code, "scope 'read'" in refused.json()["detail"]) == (403, True)
    wanted["scope"] = ["administer"]
    beyond = await client.post("/api/v1/tokens", json=wanted)
    assert (beyond.status_code, beyond.json()["detail"]) == (
        422,
        "the role operator does not have: administer",
    )
    listed = (await client.get("/api/v1/tokens")).json()["tokens"]
    assert made["id"] in {each["id"] for each in listed}
    assert made["token"] not in str(listed)
    assert (await client.delete(f"/api/v1/tokens/{made['id']}")).status_code == 204
    assert (await client.get("/api/v1/devices", headers=mine)).status_code == 401


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "b b", "role": "viewer", "password": PASSWORD}, "cannot name a user"),
        ({"name": "bob", "role": "viewer", "password": "short"}, "12 to 1024"),
        ({"name": "bob", "role": "king", "password": PASSWORD}, "role"),
        ({"name": "bob", "role": "viewer", "password": PASSWORD, "x": 1}, "x"),
    ],
)
async def test_wrong_users_are_refused(
    client: httpx.AsyncClient, body: dict[str, object], named: str
) -> None:
    answer = await client.post("/api/v1/users", json=body)
    assert (answer.status_code, named in answer.text) == (422, True)
    assert PASSWORD not in answer.text


@pytest.mark.parametrize(
    ("sent", "kept"), [("device-1.boot-7", True), ("short", False), ("a b c d e f", False)]
)
async def test_a_request_keeps_a_well_formed_id(
    client: httpx.AsyncClient, sent: str, *, kept: bool
) -> None:
    answer = await client.get("/api/v1/devices/none", headers={"X-Request-Id": sent})
    identifier = answer.headers["x-request-id"]
    assert (identifier == sent) is kept
    assert (answer.status_code, answer.json()["request_id"]) == (404, identifier)

"""The audit trail: every change has an entry, in the same transaction, in a chain that holds."""

import asyncio
import json
import os
import pwd
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import delete, insert, update

from fleet_server import local_database, tenancy
from fleet_server.accounts.roles import Role
from fleet_server.accounts.tables import User
from fleet_server.audit import chain, trail
from fleet_server.audit.chain import BEGINNING, ChainBrokenError, Entry, Verification, sealed
from fleet_server.audit.commands import verify_tenant
from fleet_server.audit.tables import AuditEntry
from fleet_server.database import Database
from tests.unit.fleet_server.authority import DeviceKey, Fleet
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired


async def verified(database: Database, tenant: str = tenancy.DEFAULT, head: str = "") -> str:
    async with database.reading() as session:
        return await verify_tenant(session, tenant, {tenant: head} if head else {})


async def written(database: Database, tenant: str = tenancy.DEFAULT) -> list[Entry]:
    async with database.reading() as session:
        return await trail.entries(session, tenant, after=0)


async def add(database: Database, subject: str) -> None:
    async with database.writing() as session:
        await trail.record(session, "test", subject, before={"a": 1}, after=None)


async def test_many_writers_make_one_chain(database: Database, database_url: str) -> None:
    other = Database(database_url)  # as another process would have it
    await asyncio.gather(*(add(each, f"{n}") for n in range(10) for each in (database, other)))
    await other.close()
    entries = await written(database)
    assert [entry.number for entry in entries] == list(range(1, 21))
    assert (await verified(database)).startswith("20:")


async def test_an_entry_lives_and_dies_with_its_change(database: Database) -> None:
    async def fails() -> None:
        async with database.writing() as session:
            await trail.record(session, "test", "never")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await written(database) == []


@pytest.mark.parametrize(
    "tampering",
    [
        update(AuditEntry).where(AuditEntry.number == 2).values(actor="somebody else"),
        update(AuditEntry).where(AuditEntry.number == 2).values(before=None),
        update(AuditEntry).where(AuditEntry.number == 3).values(previous_sha256="0" * 64),
        delete(AuditEntry).where(AuditEntry.number == 2),
        delete(AuditEntry).where(AuditEntry.number == 1),
    ],
    ids=["who", "what", "link", "removed", "first removed"],
)
async def test_tampering_is_found(database: Database, tampering: object) -> None:
    for subject in ("a", "b", "c"):
        await add(database, subject)
    async with database.writing() as session:
        await session.execute(tampering)  # type: ignore[call-overload]
    with pytest.raises(ChainBrokenError, match=r"entry [123] of the tenant default"):
        await verified(database)


async def test_a_cut_end_is_found_by_the_noted_head(database: Database) -> None:
    for subject in ("a", "b"):
        await add(database, subject)
    head = await verified(database)
    await add(database, "c")
    assert await verified(database, head=head) != head
    async with database.writing() as session:
        await session.execute(delete(AuditEntry).where(AuditEntry.number >= 2))
    await verified(database)
    with pytest.raises(ChainBrokenError, match="cut off or written anew"):
        await verified(database, head=head)


def test_an_entry_written_anew_with_its_hash_breaks_the_next() -> None:
    first = _entry(1, BEGINNING)
    second = _entry(2, first.sha256)
    forged = sealed(msgspec.structs.replace(first, actor="mallory"))
    with pytest.raises(ChainBrokenError, match="does not follow"):
        Verification().take([forged, second])
    Verification().take([first, second])


def _entry(number: int, previous: str) -> Entry:
    return sealed(
        Entry(
            tenant="t", number=number, at_ms=1, actor="a", action="b", subject="c", before=None,
            after=None, request_id=None, previous_sha256=previous,
        )
    )  # fmt: skip


async def test_every_change_over_the_api_has_an_entry(fleet: Fleet, database: Database) -> None:
    services = await wired(fleet, database)
    await services.enrollment.enroll(
        token=fleet.claim_token("cam-1"), csr_pem=DeviceKey.new("cam-1").csr()
    )
    admin, _ = await services.accounts.create(
        name="ann", role=Role.ADMIN, lifetime=timedelta(hours=1)
    )
    async with client_of(services) as client:
        headers = bearer(admin)
        group = {"selector": "site=x", "description": "one"}
        await client.put("/api/v1/groups/g", json=group, headers=headers)
        answer = await client.put(
            "/api/v1/groups/g", json=group | {"description": "two"}, headers=headers
        )
        user = {"name": "bob", "role": "viewer", "password": "correct horse battery"}
        await client.post("/api/v1/users", json=user, headers=headers)
        await client.patch("/api/v1/users/bob", json={"role": "operator"}, headers=headers)
        await client.post("/api/v1/devices/cam-1/decommission", headers=headers)
        rule = {"signal": "alarms", "fires_at": 1}
        await client.put("/api/v1/alert-rules/r", json=rule, headers=headers)
        for removed, status in (("groups/g", 204), ("alert-rules/r", 204), ("alert-rules/r", 404)):
            gone = await client.delete(f"/api/v1/{removed}", headers=headers)
            assert gone.status_code == status, removed
        exported = (await client.get("/api/v1/audit/export", headers=headers)).text
    entries = [json.loads(line) for line in exported.splitlines()]
    assert [entry["action"] for entry in entries] == [
        "device.enroll",
        "token.create",
        "PUT /api/v1/groups/g",
        "PUT /api/v1/groups/g",
        "user.create",
        "user.change",
        "device.decommissioned",
        "PUT /api/v1/alert-rules/r",
        "DELETE /api/v1/groups/g",
        "DELETE /api/v1/alert-rules/r",  # and none for what there was nothing to remove
    ]
    before = {
        name: row for each in entries[-2:] for name, row in json.loads(each["before"]).items()
    }
    assert before["device_groups default g"]["selector"] == "site=x"
    assert before["alert_rules default r"]["signal"] == "alarms"
    assert {entry["actor"] for entry in entries[2:]} == {"token ann"}
    claim = json.loads(entries[0]["after"])["claim"]
    assert entries[0]["actor"] == f"claim {claim}"
    changed = entries[3]
    assert changed["request_id"] == answer.headers["x-request-id"]
    assert json.loads(changed["before"])["device_groups default g"]["description"] == "one"
    assert json.loads(changed["after"])["device_groups default g"]["description"] == "two"
    role = json.loads(entries[5]["before"])["role"], json.loads(entries[5]["after"])["role"]
    assert role == ("viewer", "operator")
    assert "argon2" not in exported
    assert "correct horse" not in exported
    decoded = [msgspec.json.decode(line, type=Entry) for line in exported.splitlines()]
    Verification().take(decoded)
    assert chain.line(decoded[0]).decode() == exported.splitlines(keepends=True)[0]


async def test_the_trail_is_searched_by_who_what_and_when(fleet: Fleet, database: Database) -> None:
    services = await wired(fleet, database)
    admin, _ = await services.accounts.create(
        name="ann", role=Role.ADMIN, lifetime=timedelta(hours=1)
    )
    for who in ("user bob", "user eve", "user bob"):
        with trail.acting(who):
            await add(database, who)
    async with database.writing() as session:
        for number in (1, 2, 3, 4):
            moved = update(AuditEntry).where(AuditEntry.number == number)
            await session.execute(moved.values(at_ms=number * 1000))

    async def found(**wanted: str | int) -> list[int]:
        answer = await client.get("/api/v1/audit", params=wanted)
        assert answer.status_code == 200, answer.text
        return [entry["number"] for entry in answer.json()["entries"]]

    async with client_of(services) as client:
        client.headers.update(bearer(admin))
        assert await found(actor="user bob") == [2, 4]
        assert await found(action="token.create") == [1]
        assert await found(since_ms=2000, until_ms=4000) == [2, 3]
        assert await found(actor="user bob", since_ms=3000) == [4]
        assert await found(actor="user") == []
        page = (await client.get("/api/v1/audit", params={"actor": "user bob", "limit": 1})).json()
        assert await found(actor="user bob", limit=1, after=page["next_after"]) == [4]
        assert (await client.get("/api/v1/audit", params={"since_ms": -1})).status_code == 422


def test_a_command_on_the_server_names_who_gave_it(tmp_path: Path) -> None:
    here, missing = pwd.getpwuid(os.getuid()).pw_name, tmp_path / "none"
    assert local_database.operator(missing) == f"local:{here}"
    login = tmp_path / "loginuid"
    for written, said in (("4294967295", ""), (str(os.getuid()), ""), ("987654", " for 987654")):
        login.write_text(written)
        assert local_database.operator(login) == f"local:{here}{said}"


async def test_what_no_service_described_is_recorded_row_by_row(database: Database) -> None:
    row = User(name="eve", role="viewer", password_hash="$argon2", created_ms=1)
    actor = trail.actor.set("user ann")
    try:
        async with database.writing() as session:
            session.add(row)
        async with database.writing() as session:
            found = await session.get(User, "eve")
            await session.delete(found)
    finally:
        trail.actor.reset(actor)
    created, deleted = await written(database)
    assert created.before is None
    assert json.loads(created.after or "") == json.loads(deleted.before or "")
    assert "argon2" not in (created.after or "")


async def test_a_statement_over_many_rows_says_which(database: Database) -> None:
    rows = [
        {"name": name, "role": "viewer", "password_hash": "$argon2", "created_ms": 1}
        for name in ("ann", "bob", "eve")
    ]
    actor = trail.actor.set("user root")
    try:
        async with database.writing() as session:
            await session.execute(insert(User), rows)
        async with database.writing() as session:
            chosen = User.name.in_(["bob", "eve"])
            await session.execute(update(User).where(chosen).values(role="operator"))
        async with database.writing() as session:
            await session.execute(delete(User).where(User.role == "operator"))
    finally:
        trail.actor.reset(actor)
    made, changed, deleted = [
        json.loads(entry.after or "")["statements"][0] for entry in await written(database)
    ]
    assert (made["rows"], [row["name"] for row in made["parameters"]]) == (3, ["ann", "bob", "eve"])
    assert changed["parameters"] == {"role": "operator", "name_1": ["bob", "eve"]}
    assert (changed["rows"], deleted["rows"]) == (2, 2)
    assert deleted["statement"].startswith("DELETE FROM users")
    assert deleted["parameters"] == {"role_1": "operator"}
    assert "argon2" not in json.dumps(made)

"""Every route, with every role and from a second tenant: none can be forgotten."""

import re
from dataclasses import dataclass
from datetime import timedelta

import pytest
from fastapi import FastAPI

from fleet_server import tenancy
from fleet_server.accounts.authorization import SCHEME
from fleet_server.accounts.roles import PERMISSIONS, Role
from fleet_server.app import create_app
from fleet_server.database import Base, Database
from fleet_server.releases.tables import Release
from fleet_server.services import Services
from fleet_server.telemetry.tables import ModelCounts, Window
from fleet_server.tenancy import DeviceOwned, FamilyOwned, FamilyOwner, Tenant, TenantOwned
from tests.unit.fleet_server.authority import FAMILY, DeviceKey, Fleet
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

PUBLIC = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("POST", "/device/v1/enroll"),  # the claim in its body is the proof
    ("POST", "/api/v1/admin-claim"),  # so it is here
    ("POST", "/api/v1/login"),  # the way in
    ("GET", "/api/v1/oidc/login"),  # the other way in
    ("GET", "/api/v1/oidc/callback"),  # and its end
}
"""Routes that ask for no account, each for a reason."""

OF_DEVICES = "/device/v1/"
"""Routes that ask for a device's own token."""

NOT_OWNED = {
    "tenants": "the list of tenants; no route shows it",
    "family_owners": "says who owns a family; no route shows it",
    "device_change_counter": "numbers changes; no route shows it",
    "device_changes": "tells processes what to read anew; no route shows it",
    "login_attempts": "belongs to who has not said yet who it is",
    "pending_logins": "the same, while its owner is at the provider",
    "alert_watch": "says when the servers looked last; no route shows it",
    "fleet_heard": "says when the servers heard devices last; no route shows it",
    "deaf_spans": "says when they heard none; no route shows it",
    "broker_authorities": "public, and the same for all; shown to the default tenant alone",
    "broker_followers": "who tells the brokers of all; shown to the default tenant alone",
}
"""Tables without an owner, each for a reason."""

OF_THE_DEFAULT_TENANT = {
    ("GET", "/api/v1/trust/broker"),  # a broker serves the devices of all tenants
}
"""Routes that other tenants' tokens are refused at, whatever their role, each for a reason."""

MARK = "of-the-first"
"""In everything that belongs to the first tenant."""

DEVICE = f"cam-{MARK}"
GROUP = f"group-{MARK}"
USER = f"user-{MARK}"
VERSION = f"1.0.0-{MARK}"
OURS = {
    "device_id": DEVICE,
    "name": GROUP,
    "family": FAMILY,
    "version": VERSION,
    "user": USER,
}
"""Values of path parameters that exist in the first tenant."""


@dataclass(frozen=True)
class Operation:
    """One operation of the OpenAPI document, aimed at what the first tenant has."""

    method: str
    template: str
    permission: str | None

    @property
    def path(self) -> str:
        return re.sub(r"\{(\w+)\}", lambda match: OURS.get(match[1], MARK), self.template)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


def operations(app: FastAPI) -> list[Operation]:
    found = []
    for path, item in app.openapi()["paths"].items():
        for method, described in item.items():
            asked = [
                permission
                for scheme in described.get("security", ())
                for permission in scheme.get(SCHEME, ())
            ]
            found.append(Operation(method.upper(), path, asked[0] if asked else None))
    return [each for each in found if (each.method, each.template) not in PUBLIC]


@pytest.fixture
async def services(fleet: Fleet, database: Database) -> Services:
    made = await wired(fleet, database)
    async with database.writing() as session:
        session.add_all([Tenant(name="first"), Tenant(name="second")])
        session.add(FamilyOwner(family=FAMILY, tenant="first"))
        session.add(
            Release(
                family=FAMILY,
                version=VERSION,
                manifest_path=MARK,
                manifest_length=1,
                manifest_sha256="0" * 64,
                security_counter=0,
                description=MARK,
                size_bytes=1,
                published_ms=0,
            )
        )
    token = fleet.claim_token(DEVICE, tenant="first")
    device = await made.enrollment.enroll(token=token, csr_pem=DeviceKey.new(DEVICE).csr())
    window = Window(
        device_id=device.id, stream=MARK, sequence=1, covers_from=1, start_ms=1000, end_ms=2000,
        received_ms=2000, system="{}",
    )  # fmt: skip
    counts = ModelCounts(
        device_id=device.id, start_ms=1000, family=FAMILY, version=VERSION, variant=MARK,
        requests=1, counts="{}", window_id=1,
    )  # fmt: skip
    async with database.writing() as session:
        session.add(window)
        await session.flush()
        session.add(counts)
    return made


async def token(services: Services, tenant: str, role: Role) -> str:
    made, _ = await services.accounts.create(
        name=role.value, role=role, lifetime=timedelta(hours=1), tenant=tenant
    )
    return made


async def test_every_table_has_an_owner(services: Services) -> None:
    del services  # has imported all tables
    ownerless = {
        mapper.class_.__tablename__
        for mapper in Base.registry.mappers
        if not issubclass(mapper.class_, TenantOwned | DeviceOwned | FamilyOwned)
    }
    assert ownerless == set(NOT_OWNED)


async def test_every_route_asks_for_exactly_its_permission(services: Services) -> None:
    async with client_of(services) as client:
        for each in operations(create_app(services)):
            only_default = (each.method, each.template) in OF_THE_DEFAULT_TENANT
            whose = tenancy.DEFAULT if only_default else "first"
            tokens = {role: await token(services, whose, role) for role in Role}  # one logs out
            assert (await client.request(each.method, each.path)).status_code == 401, each
            if each.template.startswith(OF_DEVICES):
                admin = bearer(tokens[Role.ADMIN])
                answer = await client.request(each.method, each.path, headers=admin)
                assert answer.status_code == 401, each
                continue
            assert each.permission is not None, f"{each} asks for no permission"
            for role, granted in PERMISSIONS.items():
                answer = await client.request(each.method, each.path, headers=bearer(tokens[role]))
                allowed = answer.status_code not in {401, 403}
                assert answer.status_code < 500, (each, answer.text)
                assert allowed == (each.permission in granted), (each, role, answer.text)
            if only_default:
                theirs = bearer(await token(services, "first", Role.ADMIN))
                answer = await client.request(each.method, each.path, headers=theirs)
                assert answer.status_code == 403, each


async def test_another_tenant_sees_and_changes_nothing(
    services: Services, database: Database
) -> None:
    async with client_of(services) as client:
        ours = bearer(await token(services, "first", Role.ADMIN))
        body = {"selector": "site=x", "description": MARK}
        assert (await client.put(f"/api/v1/groups/{GROUP}", json=body, headers=ours)).is_success
        user = {"name": USER, "role": "admin", "password": "a long password"}
        assert (await client.post("/api/v1/users", json=user, headers=ours)).is_success
        shown = await client.get(f"/api/v1/devices/{DEVICE}", headers=ours)
        assert shown.json()["id"] == DEVICE
        before = await contents(database)
        for each in operations(create_app(services)):
            heals_the_index = (each.method, each.template) == ("POST", "/api/v1/releases")
            if each.template.startswith(OF_DEVICES) or heals_the_index:
                continue  # the index would lose the release, of which there are no files here
            theirs = bearer(await token(services, "second", Role.ADMIN))
            answer = await client.request(each.method, each.path, headers=theirs, json=_body(each))
            where = f"{each}: {answer.status_code} {answer.text}"
            if "{" in each.template and each.method != "PUT":
                assert answer.status_code in {404, 422}, where
            assert answer.status_code < 500, where
            assert answer.status_code >= 400 or MARK not in answer.text, where
        assert await contents(database) == before


def _body(operation: Operation) -> dict[str, object]:
    """Return a body that reaches for what is the first tenant's."""
    if operation.template == "/api/v1/assignments":
        return {"family": FAMILY, "version": VERSION, "devices": [DEVICE]}
    if operation.template == "/api/v1/users/{user}":
        return {"role": "viewer"}
    if operation.template.endswith("/labels"):
        return {"labels": {"site": "theirs"}}
    return {}


async def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows but those that say that the second tenant was let in."""
    with tenancy.everything():
        async with database.reading() as session:
            connection = await session.connection()
            return {
                table.name: [tuple(row) for row in await connection.execute(table.select())]
                for table in Base.metadata.sorted_tables
                if table.name not in {"api_tokens", "audit_entries"}
            }


async def test_tenants_may_use_the_same_names(services: Services) -> None:
    async with client_of(services) as client:
        for tenant in ("first", "second"):
            mine = bearer(await token(services, tenant, Role.OPERATOR))
            body = {"selector": "site=x", "description": tenant}
            assert (await client.put("/api/v1/groups/same", json=body, headers=mine)).is_success
        for tenant in ("first", "second"):
            mine = bearer(await token(services, tenant, Role.VIEWER))
            answer = await client.get("/api/v1/groups/same", headers=mine)
            assert answer.json()["description"] == tenant


async def test_a_device_gets_the_files_of_its_tenants_families_only(
    fleet: Fleet, services: Services
) -> None:
    key = DeviceKey.new("cam-2")
    claim = fleet.claim_token("cam-2", tenant="second")
    await services.enrollment.enroll(token=claim, csr_pem=key.csr())
    async with client_of(services) as client:
        mine = bearer(key.token())
        for path in (
            f"/device/v1/repository/metadata/1.{FAMILY}.json",
            f"/device/v1/repository/targets/models/{FAMILY}/{VERSION}/{'0' * 64}.model.onnx",
        ):
            answer = await client.get(path, headers=mine)
            assert (answer.status_code, answer.json()["detail"]) == (
                404,
                f"there is no family {FAMILY} here",
            )
        answer = await client.get("/device/v1/repository/metadata/timestamp.json", headers=mine)
        assert answer.status_code == 200


async def test_a_claim_for_a_tenant_that_does_not_exist(fleet: Fleet, services: Services) -> None:
    async with client_of(services) as client:
        body = {
            "token": fleet.claim_token("cam-3", tenant="third"),
            "csr_pem": DeviceKey.new("cam-3").csr(),
        }
        answer = await client.post("/device/v1/enroll", json=body)
        assert (answer.status_code, "no tenant third" in answer.text) == (422, True)

"""``/metrics``: what is counted, and who is told what."""

from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from fleet_server.accounts.roles import Role
from fleet_server.database import Database
from fleet_server.services import Services
from fleet_server.tenancy import Tenant
from tests.unit.fleet_server.authority import DeviceKey, Fleet
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired


async def page_of(services: Services, tenant: str) -> dict[tuple[str, ...], float]:
    token, _ = await services.accounts.create(
        name="prometheus", role=Role.VIEWER, lifetime=timedelta(days=1), tenant=tenant
    )
    async with client_of(services) as client:
        await client.get("/no/such/path")
        await client.get("/api/v1/devices/cam-9", headers=bearer(token))
        answer = await client.get("/metrics", headers=bearer(token))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_route_and_devices_by_health(
    fleet: Fleet, database: Database
) -> None:
    services = await wired(fleet, database)
    for name in ("cam-1", "cam-2"):
        await services.enrollment.enroll(
            token=fleet.claim_token(name), csr_pem=DeviceKey.new(name).csr()
        )
    page = await page_of(services, "default")
    assert page["skerry_fleet_devices", "new"] == 2
    assert page["skerry_fleet_devices", "healthy"] == 0
    assert page["skerry_fleet_rollouts", "stopped"] == 0
    assert page["skerry_server_requests_total", "GET", "none", "404"] == 1
    assert page["skerry_server_requests_total", "GET", "/api/v1/devices/{device_id}", "404"] == 1
    assert page["skerry_server_request_seconds_count", "/api/v1/devices/{device_id}"] == 1
    assert page["skerry_server_logins_total", "wrong", "password"] == 0
    assert page["skerry_server_component_up", "database"] == 1
    assert page["skerry_server_component_up", "broker"] == 0
    assert page["skerry_server_uplink_backlog",] == 0


async def test_a_tenant_is_told_of_its_own_fleet_only(fleet: Fleet, database: Database) -> None:
    services = await wired(fleet, database)
    async with database.writing() as session:
        session.add(Tenant(name="other"))
    await services.enrollment.enroll(
        token=fleet.claim_token("cam-1"), csr_pem=DeviceKey.new("cam-1").csr()
    )
    page = await page_of(services, "other")
    assert page["skerry_fleet_devices", "new"] == 0
    assert {name for name, *_ in page} == {"skerry_fleet_devices", "skerry_fleet_rollouts"}


async def test_strangers_are_told_nothing(fleet: Fleet, database: Database) -> None:
    services = await wired(fleet, database)
    async with client_of(services) as client:
        assert (await client.get("/metrics")).status_code == 401

"""What webhooks are told of rollouts: each turn of one once, whoever decides, and no other."""

import asyncio
import json
from dataclasses import replace

from sqlalchemy import select

from fleet_server.alerts.rules import Severity
from fleet_server.alerts.tables import AlertDelivery, AlertWebhook
from fleet_server.database import Database
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.plan import OnFailure
from fleet_server.rollouts.state import Kind
from fleet_server.tenancy import Tenant
from tests.unit.fleet_server.rollouts.conftest import FAILING, World, a_plan


async def receive(database: Database, name: str, *, least: Severity, tenant: str) -> None:
    async with database.writing() as session:
        await session.merge(Tenant(name=tenant))
        session.add(
            AlertWebhook(
                tenant=tenant, name=name, url="https://receiver.example/", secret="whsec_eA==",
                min_severity=least.value, created_ms=0,
            )
        )  # fmt: skip


async def told(database: Database) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    async with database.reading() as session:
        for row in await session.scalars(select(AlertDelivery).order_by(AlertDelivery.id)):
            found.setdefault(row.webhook, []).append(json.loads(row.body))
    return found


async def test_a_stop_is_told_once_though_several_servers_decide(world: World) -> None:
    await receive(world.database, "all", least=Severity.INFO, tenant="default")
    await receive(world.database, "grave", least=Severity.CRITICAL, tenant="default")
    await receive(world.database, "foreign", least=Severity.INFO, tenant="other")
    await world.populate(10, lambda _: replace(FAILING))
    rollout = await world.create()
    servers = [world.server(), world.server()]
    for _ in range(20):
        await asyncio.gather(*(server.once() for server in servers))
        await world.fleet.step()
        world.clock.advance(seconds=5)
    notices = await told(world.database)
    kinds = {name: [each["type"] for each in those] for name, those in notices.items()}
    stopped, returned = "skerry.rollout.stopped", "skerry.rollout.rolled_back"
    assert kinds == {"all": [stopped, returned], "grave": [stopped]}
    first = notices["all"][0]
    assert first["id"] == notices["grave"][0]["id"]
    assert (first["source"], first["subject"]) == ("/skerry/tenants/default", f"rollouts/{rollout}")
    decided = next(row for row in await world.history(rollout) if row.kind == Kind.STOPPED)
    data = first["data"]
    assert isinstance(data, dict)
    assert data["rollout"] == rollout
    assert data["decision"] == decided.number
    assert data["detail"] == decided.reason
    assert data["detail"].startswith("Stopped: ")
    assert (data["version"], data["status"], data["severity"]) == (
        "2.0.0", "rolling_back", "critical",
    )  # fmt: skip


async def test_what_operators_make_of_a_stop_is_told_too(world: World) -> None:
    await receive(world.database, "all", least=Severity.INFO, tenant="default")
    await world.populate(10, lambda _: replace(FAILING))
    rollout = await world.create(a_plan(on_failure=OnFailure.STOP))
    server = world.server()
    await world.run(server, ticks=6)
    for wanted in (Intervention.RESUME, Intervention.PAUSE, Intervention.ROLL_BACK):
        await world.rollouts.intervene(rollout, wanted, who="ann", why="")
    await world.run(server, ticks=6)
    kinds = [
        str(each["type"]).removeprefix("skerry.rollout.")
        for each in (await told(world.database))["all"]
    ]
    assert kinds == ["stopped", "resumed", "paused", "roll_back_asked", "rolled_back"]

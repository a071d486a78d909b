"""Every list of the OpenAPI document is read to its end, page by page: none can be forgotten."""

import re
from datetime import timedelta

import httpx
import msgspec
import pytest

from fleet_server.accounts.roles import Role
from fleet_server.accounts.tables import User
from fleet_server.alerts.tables import Alert, AlertDelivery, AlertSilence, AlertWebhook
from fleet_server.app import create_app
from fleet_server.commands.tables import DeviceCommand
from fleet_server.database import Base, Database
from fleet_server.devices.tables import Device, DeviceGroup, DeviceTerm
from fleet_server.releases.tables import Release
from fleet_server.rollouts.plan import Plan, Stage
from fleet_server.rollouts.tables import Rollout, RolloutDecision, RolloutMember
from fleet_server.services import Services
from fleet_server.telemetry.tables import DeviceEvent, Window
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.filled_rows import filled
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

NAMES = ("a-1", "b-2", "c-3")
OURS = {"device_id": NAMES[0], "name": NAMES[0], "rollout_id": "1"}
"""Values of path parameters below which there are lists."""

PLAN = msgspec.json.encode(Plan(family="f", version="1.0.0", stages=(Stage(count=1),))).decode()


def rows() -> list[list[Base]]:
    """Return three rows for every list, in an order in which they can be stored."""
    first = {"device_id": NAMES[0]}
    each = list(enumerate(NAMES, start=1))
    return [
        [filled(Device, id=name, facts="{}", labels="{}") for name in NAMES],
        [DeviceTerm(device_id=name, name="id", value=name) for name in NAMES],
        [filled(AlertWebhook, name=NAMES[0], min_severity="info")],
        [filled(Rollout, family=name, plan=PLAN, status="paused") for name in NAMES],
        [filled(User, name=name, role="viewer") for name in NAMES],
        [filled(DeviceGroup, name=name, selector="*") for name in NAMES],
        [filled(Release, version=f"{n}.0.0") for n, _ in each],
        [filled(Alert, **first, rule=name, state="firing", severity="info") for name in NAMES],
        [filled(AlertSilence, selector=name, ends_ms=2**50) for name in NAMES],
        [filled(AlertDelivery, webhook=NAMES[0], event_id=name) for name in NAMES],
        [
            filled(DeviceCommand, **first, id=name, sequence=n, action="{}", state="open")
            for n, name in each
        ],
        [filled(Window, **first, sequence=n, system="{}") for n, _ in each],
        [filled(DeviceEvent, **first, sequence=n) for n, _ in each],
        [filled(RolloutMember, rollout_id=1, device_id=name, state="waiting") for name in NAMES],
        [
            filled(
                RolloutDecision, rollout_id=1, number=n, kind="observed", inputs="{}", devices="[]"
            )
            for n, _ in each
        ],
    ]


@pytest.fixture
async def services(fleet: Fleet, database: Database) -> Services:
    made = await wired(fleet, database)
    for alike in rows():
        for row in alike:  # one by one, since ids are given in the order of their numbers
            async with database.writing() as session:
                session.add(row)
    return made


def lists(services: Services, *parameters: str) -> list[str]:
    """Return the paths of all lists that have pages, and these parameters."""
    return [
        re.sub(r"\{(\w+)\}", lambda match: OURS[match[1]], path)
        for path, item in create_app(services).openapi()["paths"].items()
        if {"after", "limit", *parameters}
        <= {each["name"] for each in item.get("get", {}).get("parameters", ())}
    ]


def items(page: dict[str, object]) -> list[object]:
    found = next(value for value in page.values() if isinstance(value, list))
    return list(found)


async def test_every_list_is_read_to_its_end_page_by_page(services: Services) -> None:
    """`next_after` of one page is what `after` of the next one takes, whatever the list."""
    async with client_of(services) as client:
        client.headers.update(await admin(services))
        found = lists(services)
        assert len(found) >= len(rows())
        for path in found:
            whole = (await client.get(path, params={"limit": 500})).json()
            assert len(items(whole)) >= len(NAMES), f"{path}: give this list some rows"
            assert whole["next_after"] is None, path
            assert await page_by_page(client, path) == items(whole), path


async def test_what_has_an_order_is_read_both_ways(services: Services) -> None:
    async with client_of(services) as client:
        client.headers.update(await admin(services))
        found = lists(services, "order")
        assert len(found) == 2
        for path in found:
            upwards = await page_by_page(client, path, order="asc")
            assert await page_by_page(client, path) == upwards, path
            assert await page_by_page(client, path, order="desc") == upwards[::-1], path
            refused = await client.get(path, params={"order": "newest"})
            assert refused.status_code == 422, path
            assert "query.order" in refused.json()["detail"], path


@pytest.mark.parametrize(
    ("path", "key", "filtered"),
    [
        ("/api/v1/audit-count", "entries", {"action": "token.create"}),
        (f"/api/v1/devices/{NAMES[0]}/event-count", "events", {"kind": "x"}),
    ],
)
async def test_what_is_long_is_counted(
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    key: str,
    filtered: dict[str, str],
) -> None:
    async with client_of(services) as client:
        client.headers.update(await admin(services))
        for asked, number in ((filtered, 3), (dict.fromkeys(filtered, "no such"), 0)):
            answer = await client.get(path, params=asked)
            assert answer.json() == {key: number, "is_capped": False}
        for module in ("audit", "telemetry"):
            monkeypatch.setattr(f"fleet_server.{module}.routes.MAX_COUNTED", 2)
        assert (await client.get(path)).json() == {key: 2, "is_capped": True}


async def admin(services: Services) -> dict[str, str]:
    """Return the header of one of as many new tokens as any list has rows."""
    for name in NAMES:
        token, _ = await services.accounts.create(
            name=name, role=Role.ADMIN, lifetime=timedelta(hours=1)
        )
    return bearer(token)


async def page_by_page(client: httpx.AsyncClient, path: str, **asked: str) -> list[object]:
    seen: list[object] = []
    more: dict[str, str] | None = {}
    while more is not None:
        answer = await client.get(path, params={"limit": "2"} | asked | more)
        assert answer.status_code == 200, (path, answer.text)
        seen += items(answer.json())
        after = answer.json()["next_after"]
        more = None if after is None else {"after": after}
    return seen

"""Every list of the OpenAPI document is read to its end, page by page: none can be forgotten."""

import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import BigInteger, Boolean, Column, Integer, Table

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
from tests.unit.fleet_server.in_process_app import bearer, client_of, wired

NAMES = ("a-1", "b-2", "c-3")
OURS = {"device_id": NAMES[0], "name": NAMES[0], "rollout_id": "1"}
"""Values of path parameters below which there are lists."""

PLAN = msgspec.json.encode(Plan(family="f", version="1.0.0", stages=(Stage(count=1),))).decode()


def filled(kind: type[Base], /, **stated: object) -> Base:
    """Return a row in which whatever has to be stated, and is not, has some value of its type."""
    table = kind.__table__
    assert isinstance(table, Table)
    needed = {
        column.key: _some(column)
        for column in table.columns
        if not column.nullable and column.default is None and column.autoincrement is not True
    }
    return kind(**(needed | stated))


def _some(column: Column[Any]) -> object:
    if isinstance(column.type, Boolean):
        return False
    return 1 if isinstance(column.type, Integer | BigInteger) else "x"


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


def lists(services: Services) -> list[str]:
    """Return the paths of all lists that have pages."""
    return [
        path
        for path, item in create_app(services).openapi()["paths"].items()
        if {"after", "limit"}
        <= {each["name"] for each in item.get("get", {}).get("parameters", ())}
    ]


def items(page: dict[str, object]) -> list[object]:
    found = next(value for value in page.values() if isinstance(value, list))
    return list(found)


async def test_every_list_is_read_to_its_end_page_by_page(services: Services) -> None:
    """`next_after` of one page is what `after` of the next one takes, whatever the list."""
    tokens = [
        (await services.accounts.create(name=name, role=Role.ADMIN, lifetime=timedelta(hours=1)))[0]
        for name in NAMES
    ]
    found = lists(services)
    assert len(found) >= len(rows())
    async with client_of(services) as client:
        client.headers.update(bearer(tokens[0]))
        for path in found:
            where = re.sub(r"\{(\w+)\}", lambda match: OURS[match[1]], path)
            whole = (await client.get(where, params={"limit": 500})).json()
            assert len(items(whole)) >= len(NAMES), f"{where}: give this list some rows"
            assert whole["next_after"] is None, where
            seen: list[object] = []
            asked: dict[str, str] | None = {}
            while asked is not None:
                answer = await client.get(where, params={"limit": "2"} | asked)
                assert answer.status_code == 200, (where, answer.text)
                seen += items(answer.json())
                after = answer.json()["next_after"]
                asked = None if after is None else {"after": after}
            assert seen == items(whole), where

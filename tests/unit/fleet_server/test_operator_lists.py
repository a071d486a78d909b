"""Lists of `skerry fleet`: all pages, or the newest items and a word about the others."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fleet_server.audit import trail
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.telemetry.tables import DeviceEvent
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.filled_rows import filled
from tests.unit.fleet_server.in_process_app import wired
from tests.unit.fleet_server.in_process_shell import Shell, shell_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

EVENTS = 7
KINDS = ("update", "alarm")


@pytest.fixture
async def shell(
    fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Shell]:
    made = await wired(fleet, database)
    async with database.writing() as session:
        session.add(filled(Device, id="cam-1", facts="{}", labels="{}"))
    for number in range(EVENTS):
        event = filled(
            DeviceEvent,
            device_id="cam-1",
            sequence=number,
            kind=KINDS[number % 2],
            detail=f"e{number}",
        )
        async with database.writing() as session:
            session.add(event)
            await trail.record(session, "test", f"s{number}", before=None, after=None)
    async with shell_of(made, monkeypatch, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("asked", "shown", "warning"),
    [
        ((), range(EVENTS), ""),
        (("--limit", "3"), (4, 5, 6), "4 older events are not shown: --limit N shows more, --all"),
        (("--limit", str(EVENTS)), range(EVENTS), ""),
        (("--limit", "2", "--kind", "alarm"), (3, 5), "1 older events are not shown"),
        (("--limit", "1", "--all"), range(EVENTS), ""),
    ],
)
async def test_the_newest_events_are_shown_and_how_many_are_older(
    shell: Shell, asked: tuple[str, ...], shown: tuple[int, ...], warning: str
) -> None:
    done = await shell.result("events", "cam-1", *asked)
    listed = await shell.json("events", "cam-1", *asked)
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == [f"e{n}" for n in shown]
    assert [event["detail"] for event in listed["events"]] == [f"e{n}" for n in shown]
    told = [line for line in done.stderr.splitlines() if "older" in line]
    assert len(told) == bool(warning), done.stderr
    assert warning in "".join(told)


@pytest.mark.parametrize("action", [(), ("--action", "test")])
async def test_the_newest_of_the_audit_trail(shell: Shell, action: tuple[str, ...]) -> None:
    done = await shell.result("audit", "list", "--limit", "2", *action)
    listed = (await shell.json("audit", "list", "--limit", "2", *action))["entries"]
    whole = (await shell.json("audit", "list", "--all", *action))["entries"]
    assert len(done.stdout.splitlines()) == 3
    assert listed == whole[-2:]
    assert len(whole) >= EVENTS
    assert f"{len(whole) - 2} older entries are not shown" in done.stderr


async def test_no_more_is_read_than_was_asked_for(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet_server.operator_client._PAGE", 2)
    await shell("events", "cam-1", "--limit", "3")
    asked = [parse_qs(urlsplit(url).query) for url in shell.wire.asked if "/events" in url]
    assert [query["limit"] for query in asked] == [["2"], ["1"]]

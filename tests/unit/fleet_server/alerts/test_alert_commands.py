"""`skerry fleet alert`, `alert rules`, `silence` and `webhook` against the application."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet_protocol.errors import SkerryError
from fleet_server.alerts import rule_cli
from fleet_server.alerts.tables import Alert
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.filled_rows import filled
from tests.unit.fleet_server.in_process_app import wired
from tests.unit.fleet_server.in_process_shell import Shell, shell_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def shell(
    fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Shell]:
    services = await wired(fleet, database)
    async with database.writing() as session:
        session.add(filled(Device, id="cam-1", facts="{}", labels="{}"))
        await session.flush()
        for rule, severity in (("slow", "warning"), ("hot", "critical")):
            session.add(
                filled(
                    Alert,
                    device_id="cam-1",
                    rule=rule,
                    severity=severity,
                    state="firing",
                    began_ms=1_000,
                    fired_ms=61_000,
                    detail=f"it is {rule}",
                )
            )
    async with shell_of(services, monkeypatch, tmp_path) as opened:
        yield opened


async def test_one_alert_is_looked_at(shell: Shell) -> None:
    (found,) = (await shell.json("alerts", "--severity", "critical"))["alerts"]
    assert found["rule"] == "hot"
    said = await shell("alert", "show", str(found["id"]))
    assert f"alert {found['id']}: hot of cam-1, firing" in said
    assert "fired: 1970-01-01 00:01:01Z" in said
    assert "resolved: never" in said
    assert "what: it is hot" in said
    assert await shell.json("alert", "show", str(found["id"])) == found
    with pytest.raises(SkerryError, match="there is no alert 999"):
        await shell("alert", "show", "999")


async def test_a_rule_is_set_shown_changed_and_removed(shell: Shell) -> None:
    made = ("--signal", "p95_ms", "--fires-at", "50", "--family", "animals", "--for-s", "300")
    await shell("alert", "rules", "set", "slow", *made)
    before = await shell.json("alert", "rules", "show", "slow")
    assert (before["resolves_at"], before["min_calls"], before["enabled"]) == (50, 50, True)
    assert "fires_at: 50.0" in await shell("alert", "rules", "show", "slow")
    changed = await shell.json("alert", "rules", "change", "slow", "--min-calls", "9")
    assert changed == before | {"min_calls": 9}
    with pytest.raises(SkerryError, match="say what to change"):
        await shell("alert", "rules", "change", "slow")
    with pytest.raises(SkerryError, match="resolves_at: p95_ms resolves at or below"):
        await shell("alert", "rules", "change", "slow", "--fires-at", "40")
    await shell("alert", "rules", "remove", "slow")
    for command in (("show", "slow"), ("change", "slow", "--no-enabled"), ("remove", "slow")):
        with pytest.raises(SkerryError, match="there is no alert rule 'slow'"):
            await shell("alert", "rules", *command)


async def test_a_default_rule_is_changed_and_comes_back(shell: Shell) -> None:
    default = await shell.json("alert", "rules", "show", "device-offline")
    await shell("alert", "rules", "change", "device-offline", "--no-enabled")
    held = await shell.json("alert", "rules", "show", "device-offline")
    assert held == default | {"enabled": False, "default": False}
    await shell("alert", "rules", "remove", "device-offline")
    assert await shell.json("alert", "rules", "show", "device-offline") == default
    names = [rule["name"] for rule in (await shell.json("alert", "rules", "list"))["rules"]]
    assert "device-offline" in names


async def test_a_silence_lasts_until_it_is_ended(shell: Shell) -> None:
    asked = ("silence", "create", "*", "--for", "2h", "--reason", "works")
    made = await shell.json(*asked, "--rule", "slow")
    assert "works" in await shell("silences")
    ended = await shell.json("silence", "end", str(made["id"]))
    assert ended["ends_ms"] < made["ends_ms"]
    with pytest.raises(SkerryError, match="there is no silence 999"):
        await shell("silence", "end", "999")


async def test_a_webhook_and_what_was_sent_there(shell: Shell) -> None:
    secret = await shell("webhook", "create", "pager", "--url", "https://pager.example.org/hook")
    assert '"secret"' in secret
    shown = await shell("webhook", "show", "pager")
    assert "webhook pager: https://pager.example.org/hook" in shown
    assert "secret" not in str(await shell.json("webhook", "show", "pager"))
    assert "pager" in await shell("webhooks")
    assert "Nothing was sent there yet." in await shell("webhook", "deliveries", "pager")
    await shell("webhook", "test", "pager")
    assert "tried next" in await shell("webhook", "deliveries", "pager")
    (sent,) = (await shell.json("webhook", "deliveries", "pager"))["deliveries"]
    assert sent["delivered_ms"] is None
    await shell("webhook", "remove", "pager")
    with pytest.raises(SkerryError, match="there is no webhook 'pager'"):
        await shell("webhook", "show", "pager")


async def test_what_the_help_says_of_options_that_are_left_out(shell: Shell) -> None:
    told = rule_cli.set_rule.__doc__ or ""
    held = await shell.json("alert", "rules", "set", "x", "--signal", "alarms", "--fires-at", "1")
    for name in ("for_s", "resolve_for_s", "window_s", "min_calls", "severity"):
        option = name.replace("_", "-")
        value = held[name] if isinstance(held[name], str) else f"{held[name]:g}"
        assert re.search(rf"{option}( and [a-z-]+)? {value}\b", told), name
    assert (held["selector"], held["family"], held["resolves_at"]) == ("*", None, 1)

"""Devices and telemetry in, alerts and notices out, over a real database."""

import asyncio
import json

import pytest

from fleet_server.alerts.rules import Rule, Severity, Signal
from fleet_server.database import Database
from fleet_server.devices import selector
from fleet_server.tenancy import Tenant
from tests.unit.fleet_server.alerts.conftest import World
from tests.unit.fleet_server.conftest import FakeClock

FIRED, RESOLVED = "skerry.alert.fired", "skerry.alert.resolved"


async def hook(world: World, severity: Severity = Severity.INFO) -> None:
    await world.webhooks.create("pager", url="http://127.0.0.1:9/", min_severity=severity)


async def test_a_device_falls_silent_and_comes_back(world: World) -> None:
    await world.add()
    await hook(world)
    await world.look(15 * 60 - 1)
    assert await world.states() == {}
    await world.look(60)
    assert await world.states() == {("cam-01", "device-offline"): "firing"}
    await world.hear()
    await world.look(1)
    assert await world.states() == {("cam-01", "device-offline"): "firing"}
    await world.look(60)
    assert await world.states() == {("cam-01", "device-offline"): "resolved"}
    assert await world.told() == [(FIRED, "devices/cam-01"), (RESOLVED, "devices/cam-01")]
    fired = json.loads((await world.queue())[0].body)
    assert fired["data"]["detail"].startswith("cam-01 was not heard of for 9")


async def test_servers_that_were_away_do_not_blame_the_devices(world: World) -> None:
    await world.add()
    await world.look()
    world.clock.advance(hours=10)
    await world.look(14 * 60)
    assert await world.states() == {}
    await world.look(60)
    assert await world.states() == {("cam-01", "device-offline"): "firing"}


async def test_a_clock_that_was_set_back_does_not_stop_the_looks(world: World) -> None:
    await world.look()
    world.clock.advance(hours=-5)
    await world.add(runtime_up=False)
    await world.look(180)
    assert await world.states() == {("cam-01", "runtime-down"): "firing"}


async def test_signals_of_telemetry_and_state(world: World) -> None:
    rule = Rule(name="slow", signal=Signal.P95_MS, fires_at=50, resolves_at=40)
    await world.book.put_rule(rule)
    await world.add()
    await world.hear(runtime_up=False, certificate_expires_ms=world.now_ms + 10 * 86_400_000)
    await world.change(reported='{"alarms":["look here"]}')
    await world.dropped()
    for _ in range(6):
        await world.hear()
        await world.window(latencies_ms=(10.0,) * 90 + (80.0,) * 10, errors=30, celsius=90)
        await world.look(60)
    await world.look()
    assert await world.states() == {
        ("cam-01", name): "firing"
        for name in (
            "slow",
            "runtime-down",
            "device-alarm",
            "error-rate",
            "temperature",
            "outbox-drops",
            "certificate-expiry",
        )
    }
    await world.change(runtime_up=True, certificate_expires_ms=world.now_ms + 80 * 86_400_000)
    await world.change(reported='{"alarms":[]}')
    for _ in range(70):
        await world.hear()
        await world.window(celsius=60)
        await world.look(60)
    assert set((await world.states()).values()) == {"resolved"}


async def test_within_the_band_and_without_calls_nothing_changes(world: World) -> None:
    await world.book.put_rule(
        Rule(name="slow", signal=Signal.P95_MS, fires_at=50, resolves_at=40, window_s=120)
    )
    await world.add()
    await world.window(latencies_ms=(60.0,) * 100)
    await world.look()
    assert await world.states() == {("cam-01", "slow"): "firing"}
    for latencies_ms in ((45.0,) * 100, (10.0,) * 49):
        for _ in range(4):
            await world.hear()
            await world.look(60)
            await world.window(latencies_ms=latencies_ms)
        assert await world.states() == {("cam-01", "slow"): "firing"}
    await world.window()
    await world.look(120)
    assert await world.states() == {("cam-01", "slow"): "resolved"}


@pytest.mark.parametrize("how", ["decommissioned", "disabled", "other_family"])
async def test_what_is_no_longer_watched_is_resolved(world: World, how: str) -> None:
    rule = Rule(name="slow", signal=Signal.P95_MS, fires_at=50, resolves_at=40)
    await world.book.put_rule(rule)
    await world.add()
    await world.window(latencies_ms=(60.0,) * 100)
    await world.look(10)
    assert await world.states() == {("cam-01", "slow"): "firing"}
    match how:
        case "decommissioned":
            await world.change(decommissioned_ms=world.now_ms)
        case "disabled":
            await world.book.delete_rule("slow")
        case _:
            await world.change(facts="{}")
    await world.look(10)
    assert await world.states() == {("cam-01", "slow"): "resolved"}


async def test_a_silence_keeps_notices_back_until_it_ends(world: World) -> None:
    await hook(world)
    await world.add("cam-01", labels='{"site":"x"}')
    await world.add("cam-02", labels='{"site":"y"}')
    await world.book.silence(
        selector_text="site=x", rule="runtime-down", starts_ms=None,
        ends_ms=world.now_ms + 600_000, reason="maintenance", who="ann",
    )  # fmt: skip
    for device_id in ("cam-01", "cam-02"):
        await world.change(device_id, runtime_up=False)
    await world.look(180)
    assert set((await world.states()).values()) == {"firing"}
    assert await world.told() == [(FIRED, "devices/cam-02")]
    await world.look(600)
    assert await world.told() == [(FIRED, "devices/cam-02"), (FIRED, "devices/cam-01")]


async def test_what_was_silenced_from_beginning_to_end_is_never_told(world: World) -> None:
    await hook(world)
    await world.add(runtime_up=False)
    made = await world.book.silence(
        selector_text="*", rule=None, starts_ms=None,
        ends_ms=world.now_ms + 600_000, reason="maintenance", who="ann",
    )  # fmt: skip
    await world.look(180)
    await world.hear(runtime_up=True)
    await world.look(120)
    await world.book.end_silence(made.id)
    await world.look(60)
    assert await world.states() == {("cam-01", "runtime-down"): "resolved"}
    assert await world.told() == []


async def test_a_webhook_is_told_of_what_matters_to_it(world: World) -> None:
    await world.add(runtime_up=False, certificate_expires_ms=world.now_ms + 1)
    await world.look(180)
    await hook(world, Severity.CRITICAL)  # what fires already is told to it as well
    await world.look(10)
    assert [json.loads(row.body)["data"]["rule"] for row in await world.queue()] == ["runtime-down"]


async def test_rules_of_a_tenant_are_its_own(world: World, database: Database) -> None:
    async with database.writing() as session:
        session.add(Tenant(name="other"))
    rule = Rule(
        name="runtime-down", signal=Signal.RUNTIME_DOWN, fires_at=1, resolves_at=1,
        selector=selector.parse("site=nowhere"),
    )  # fmt: skip
    await world.book.put_rule(rule)
    await world.add("ours", runtime_up=False)
    await world.add("theirs", runtime_up=False, tenant="other")
    await world.look(180)
    assert await world.states() == {("theirs", "runtime-down"): "firing"}


async def test_several_servers_make_one_history(
    world: World, database_url: str, clock: FakeClock
) -> None:
    await hook(world)
    for number in range(5):
        await world.add(f"cam-{number}", runtime_up=False)
    others = [Database(database_url) for _ in range(2)]
    servers = [World(each, clock).watch for each in others]
    for _ in range(4):
        looked = await asyncio.gather(*(each.once() for each in servers))
        assert sum(looked) == 1
        # Even if all of them look at once, because a look took long:
        await asyncio.gather(*(each._page("", 0) for each in servers))
        clock.advance(seconds=60)
    assert sorted(await world.told()) == [(FIRED, f"devices/cam-{each}") for each in range(5)]
    for each in others:
        await each.close()


async def test_pages_reach_every_device(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet_server.alerts.reading.PAGE", 2)
    for number in range(5):
        await world.add(f"cam-{number}", runtime_up=False)
    await world.look(180)
    assert len(await world.states()) == 5
    assert set((await world.states()).values()) == {"firing"}

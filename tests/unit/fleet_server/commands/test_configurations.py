"""Configurations become commands, for those devices that lack them."""

import msgspec
import pytest

from fleet_protocol.command_answers import Outcome
from fleet_protocol.remote_settings import ConfigurationStatus, RemoteSettings
from fleet_server.commands import reported
from fleet_server.commands.archive import Filters
from fleet_server.commands.configurations import ConfigurationBody
from fleet_server.commands.states import CommandState
from fleet_server.commands.tables import DeviceConfiguration
from fleet_server.devices.tables import Device
from tests.unit.fleet_server.commands.conftest import World


def body(selector: str, rank: int = 0, **control: object) -> ConfigurationBody:
    settings = msgspec.convert({"control": control}, RemoteSettings)
    return ConfigurationBody(selector=selector, rank=rank, settings=settings)


async def configured(world: World) -> dict[str, str]:
    """Let the server command what is pending; return the configuration by device."""
    world.broker.retained.clear()
    await world.server().loop.round(publish=False)
    return {
        device_id: action.name
        for device_id in world.broker.retained
        for action in world.actions(device_id)
        if hasattr(action, "name")
    }


async def all_answer(world: World, outcome: Outcome = Outcome.DONE) -> None:
    archive = world.server().archive
    for row in await archive.page(Filters(state=CommandState.OPEN), after=None, limit=100):
        await archive.take(row.device_id, world.answer(row.id, outcome))


async def test_the_highest_rank_counts_alone(world: World) -> None:
    configurations = world.server().configurations
    await configurations.put("all", body("*", telemetry_window_s=30.0))
    await configurations.put("two", body("id in (cam-002,cam-003)", rank=1, log_level="debug"))
    await configurations.put("three", body("id=cam-003", rank=2))
    wanted = {"cam-001": "all", "cam-002": "two", "cam-003": "three"}
    assert await configured(world) == wanted
    assert await configured(world) == {}, "what is open is not commanded again"
    await all_answer(world)
    assert await configured(world) == {}
    await configurations.delete("three")
    assert await configured(world) == {"cam-003": "two"}
    await all_answer(world)
    first = (await configurations.get("all")).version
    changed = await configurations.put("all", body("*", telemetry_window_s=60.0))
    assert changed.version > first
    assert await configured(world) == {"cam-001": "all"}


async def test_without_any_the_device_has_its_own_back(world: World) -> None:
    configurations = world.server().configurations
    await configurations.put("one", body("id=cam-001", log_level="debug"))
    await configured(world)
    await all_answer(world)
    await configurations.delete("one")
    assert await configured(world) == {"cam-001": ""}
    await all_answer(world)
    assert await configured(world) == {}
    async with world.database.reading() as session:
        row = await session.get_one(DeviceConfiguration, "cam-001")
    assert (row.name, row.version) == ("", 0)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REFUSED, Outcome.INTERRUPTED])
async def test_what_a_device_did_not_keep(world: World, outcome: Outcome) -> None:
    """A version that failed is not sent again; one that came at a bad time is, later."""
    configurations = world.server().configurations
    await configurations.put("one", body("id=cam-001", log_level="debug"))
    await configured(world)
    await all_answer(world, outcome)
    assert await configured(world) == {}
    world.clock.advance(minutes=6)
    async with world.database.writing() as session:
        (await session.get_one(Device, "cam-001")).last_seen_ms = world.now_ms
    again = {} if outcome is Outcome.FAILED else {"cam-001": "one"}
    assert await configured(world) == again
    await all_answer(world)
    await configurations.put("one", body("id=cam-001", log_level="info"))
    assert await configured(world) == {"cam-001": "one"}


async def says(world: World, version: int, **more: int) -> None:
    """Let cam-001 report what it works with."""
    said = ConfigurationStatus(version=version, **more)  # type: ignore[arg-type]
    async with world.database.writing() as session:
        await reported.take(session, {"cam-001": said}, world.now_ms)
        (await session.get_one(Device, "cam-001")).last_seen_ms = world.now_ms


@pytest.mark.parametrize(("said", "again"), [("same", False), ("none", True), ("other", True)])
async def test_a_device_that_was_wiped_is_configured_again(
    world: World, said: str, *, again: bool
) -> None:
    stored = await world.server().configurations.put("one", body("id=cam-001", log_level="debug"))
    version = {"same": stored.version, "none": 0, "other": 2**53}[said]
    await configured(world)
    await all_answer(world)
    await says(world, version)
    assert await configured(world) == {}, "the report may have been older than the answer"
    world.clock.advance(minutes=6)
    await says(world, 0, trial_version=stored.version)
    assert await configured(world) == {}, "it is trying"
    await says(world, version)
    assert await configured(world) == ({"cam-001": "one"} if again else {})
    changed = await world.server().configurations.put("one", body("id=cam-001"))
    assert changed.version < 2**52, "no device uses the numbers up"


async def test_settings_that_only_the_device_knows_of_are_taken_back(world: World) -> None:
    """The database is older than what the device was told."""
    await says(world, 5)
    assert await configured(world) == {"cam-001": ""}
    await all_answer(world)
    assert await configured(world) == {}


async def test_a_device_that_may_not_be_commanded_keeps_nothing_from_others(world: World) -> None:
    await world.server().configurations.put("all", body("*", log_level="debug"))
    async with world.database.writing() as session:
        (await session.get_one(Device, "cam-001")).claim = "forged"
        (await session.get_one(Device, "cam-002")).claim = ""
    assert await configured(world) == {"cam-003": "all"}


async def test_a_device_that_is_away_is_commanded_when_it_is_back(world: World) -> None:
    await world.server().configurations.put("one", body("id=cam-001", log_level="debug"))
    world.clock.advance(hours=1)
    assert await configured(world) == {}
    async with world.database.writing() as session:
        (await session.get_one(Device, "cam-001")).last_seen_ms = world.now_ms
    assert await configured(world) == {"cam-001": "one"}

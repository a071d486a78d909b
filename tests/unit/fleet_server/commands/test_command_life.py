"""A command from its order to its answer."""

import asyncio
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import inspect, select

from fleet_protocol.command_answers import LogResult, Outcome, RestartResult
from fleet_protocol.commands import MAX_OPEN, Diagnostics, Logs
from fleet_server.commands.archive import LOGS_KEPT, Filters
from fleet_server.commands.issuing import MAX_PER_MINUTE
from fleet_server.commands.schemas import CommandSummary, CommandView
from fleet_server.commands.signing import SignCommand
from fleet_server.commands.states import CommandState, Standing, standings
from fleet_server.commands.tables import DeviceCommand
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.errors import ConflictError, NotFoundError, RefusedError, ThrottledError
from tests.unit.fleet_server.commands.conftest import DEVICES, World


async def test_it_stays_in_the_mailbox_until_it_is_answered(world: World) -> None:
    (first,) = await world.order()
    (second,) = await world.order()
    assert world.mailbox() == [1, 2]
    archive = world.server().archive
    await archive.take(DEVICES[0], world.answer(first.id, begun_ms=4))
    assert world.mailbox() == [2]
    found = await archive.get(first.id)
    assert (found.state, found.detail, found.begun_ms, found.ended_ms) == ("done", "said", 4, 5)
    assert (await archive.get(second.id)).state == CommandState.OPEN


async def test_the_first_answer_counts(world: World) -> None:
    (asked,) = await world.order()
    archive = world.server().archive
    for outcome in (Outcome.INTERRUPTED, Outcome.DONE):
        await archive.take(DEVICES[0], world.answer(asked.id, outcome))
    assert (await archive.get(asked.id)).state == CommandState.INTERRUPTED


async def test_only_the_device_itself_answers(world: World) -> None:
    (asked,) = await world.order()
    for device_id, command_id in ((DEVICES[1], asked.id), (DEVICES[0], "0" * 32)):
        with pytest.raises(NotFoundError, match="no command"):
            await world.server().archive.take(device_id, world.answer(command_id))


async def test_what_expires_leaves_the_mailbox_and_may_still_be_answered(world: World) -> None:
    (asked,) = await world.order()
    archive = world.server().archive
    world.clock.advance(hours=1, seconds=1)
    assert await archive.tidy() == 1
    assert world.mailbox() == []
    assert (await archive.get(asked.id)).state == CommandState.EXPIRED
    await archive.take(DEVICES[0], world.answer(asked.id, Outcome.REFUSED))
    assert (await archive.get(asked.id)).state == CommandState.REFUSED


async def test_it_can_be_taken_back_while_it_is_open(world: World) -> None:
    (asked,) = await world.order()
    archive = world.server().archive
    assert (await archive.cancel(asked.id)).state == CommandState.CANCELED
    assert world.mailbox() == []
    with pytest.raises(ConflictError, match="is canceled"):
        await archive.cancel(asked.id)


async def test_sequences_go_on_above_those_that_were_signed_and_lost(world: World) -> None:
    """A server died between signature and commit, or its database was restored."""
    await world.order()
    async with world.database.writing() as session:
        for row in await session.scalars(select(DeviceCommand)):
            await session.delete(row)
    (asked,) = await world.order()
    assert asked.sequence == 2


@pytest.mark.parametrize(
    ("signed", "taken", "following"),
    [(0, 40, 41), (3, 40, 41), (60, 40, 61), (3, 9_000, 4), (8_000, 9_000, 9_001), (3, -1, 4)],
)
async def test_after_a_restore_sequences_go_on_above_what_the_device_has_taken(
    world: World, signed: int, taken: int, following: int
) -> None:
    """Database and signer came from a backup; a device passes over what it believes to be old."""
    claim = (await standing(world)).claim
    if signed:
        request = SignCommand(
            id="0" * 32,
            device_id=DEVICES[0],
            sequence=signed,
            issued_ms=world.now_ms,
            expires_ms=world.now_ms + 60_000,
            action=Diagnostics(),
            claim=claim,
        )
        await world.signer.sign_commands([request])
    async with world.database.writing() as session:
        device = await session.get_one(Device, DEVICES[0])
        device.reported = msgspec.json.encode({"command_sequence": taken}).decode()
    (asked,) = await world.order()
    assert asked.sequence == following
    (after,) = await world.order()
    assert after.sequence > following


async def standing(world: World) -> Standing:
    async with world.database.reading() as session:
        return (await standings(session, [DEVICES[0]]))[DEVICES[0]]


async def test_two_servers_keep_one_order(world: World) -> None:
    """What another server has stored meanwhile is never passed over by a lower sequence."""
    one, other = world.server(), world.server()
    store = one.issuing._store
    raced: list[DeviceCommand] = []

    async def late(*arguments: object) -> object:
        if not raced:
            raced.extend(
                await other.issuing.issue(
                    devices=DEVICES[:1], action=Diagnostics(), lifetime_s=60, who="bob"
                )
            )
        return await store(*arguments)  # type: ignore[arg-type]

    one.issuing._store = late  # type: ignore[method-assign, assignment]
    (asked,) = await one.issuing.issue(
        devices=DEVICES[:1], action=Diagnostics(), lifetime_s=60, who="ann"
    )
    assert asked.sequence > raced[0].sequence
    assert world.mailbox() == [raced[0].sequence, asked.sequence]


async def test_servers_that_command_one_device_at_once_all_do(
    world: World, database_url: str
) -> None:
    others = [Database(database_url) for _ in range(2)]
    servers = [replace(world, database=database).server() for database in others]
    asked = [
        server.issuing.issue(
            devices=DEVICES[:1], action=Diagnostics(), lifetime_s=60, who=f"{turn}"
        )
        for turn in range(4)
        for server in servers
    ]
    sequences = [row.sequence for rows in await asyncio.gather(*asked) for row in rows]
    assert len(set(sequences)) == len(asked)
    for database in others:
        await database.close()


async def test_limits(world: World) -> None:
    with pytest.raises(NotFoundError, match="no device nobody"):
        await world.order(DEVICES[0], "nobody")
    for _ in range(MAX_OPEN):
        await world.order()
    with pytest.raises(ConflictError, match="open commands already"):
        await world.order(*DEVICES)
    assert DEVICES[1] not in world.broker.retained
    async with world.database.writing() as session:
        device = await session.get_one(Device, DEVICES[2])
        device.decommissioned_ms = 1
    with pytest.raises(RefusedError, match="decommissioned"):
        await world.order(DEVICES[2])


async def test_so_many_a_minute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet_server.commands.issuing.MAX_PER_MINUTE", 2)
    assert MAX_PER_MINUTE > 2
    await world.order(*DEVICES[:2])
    with pytest.raises(ThrottledError):
        await world.order()
    world.clock.advance(minutes=2)
    await world.order()


async def test_logs_are_kept_for_a_while(world: World) -> None:
    (asked,) = await world.order(action=Logs())
    archive = world.server().archive
    result = LogResult(content=b"gzip", lines=3)
    await archive.take(DEVICES[0], world.answer(asked.id, result=result))
    assert await archive.log(asked.id) == b"gzip"
    stored = msgspec.json.decode((await archive.get(asked.id)).result or "")
    assert (stored["lines"], stored["content"]) == (3, "")
    world.clock.advance(seconds=LOGS_KEPT.total_seconds() + 1)
    await archive.tidy()
    with pytest.raises(NotFoundError, match="no log"):
        await archive.log(asked.id)


async def test_lists_are_without_results(world: World) -> None:
    (asked,) = await world.order()
    archive = world.server().archive
    result = RestartResult(away_s=2.0)
    await archive.take(DEVICES[0], world.answer(asked.id, result=result))
    (row,) = await archive.page(Filters(), after=None, limit=1)
    assert {"result", "document"} <= inspect(row).unloaded
    assert "result" not in CommandSummary.of(row).model_dump()
    shown = CommandView.of(await archive.get(asked.id))
    assert shown.result == {"kind": "restart_runtime", "away_s": 2.0}


async def test_lists_are_filtered(world: World) -> None:
    (first, second) = await world.order(*DEVICES[:2])
    archive = world.server().archive
    await archive.take(second.device_id, world.answer(second.id))

    async def ids(**wanted: object) -> list[str]:
        filters = Filters(**wanted)  # type: ignore[arg-type]
        return [row.id for row in await archive.page(filters, after=None, limit=10)]

    assert await ids() == [second.id, first.id]
    assert await ids(device_id=DEVICES[0]) == [first.id]
    assert await ids(state=CommandState.DONE) == [second.id]
    assert await ids(kind="logs") == []
    assert [row.id for row in await archive.page(Filters(), after=second.number, limit=9)] == [
        first.id
    ]


async def test_a_device_that_leaves_while_its_command_is_signed(world: World) -> None:
    server = world.server()
    sign = world.signer.sign_commands

    async def leaving(requests: list[SignCommand]) -> list[bytes]:
        async with world.database.writing() as session:
            (await session.get_one(Device, "cam-001")).decommissioned_ms = 1
        return await sign(requests)

    world.signer.sign_commands = leaving  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="decommissioned meanwhile: cam-001"):
        await server.issuing.issue(
            devices=DEVICES[:1], action=Diagnostics(), lifetime_s=60, who="ann"
        )

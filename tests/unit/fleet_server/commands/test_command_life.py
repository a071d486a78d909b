"""A command from its order to its answer, and configurations that become commands."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
import pytest
from sqlalchemy import inspect, select

from fleet_protocol.command_answers import Answer, LogResult, Outcome, RestartResult
from fleet_protocol.commands import (
    MAX_OPEN,
    Diagnostics,
    Logs,
    action_of,
    decode_command,
    decode_mailbox,
    payload_of,
)
from fleet_protocol.remote_settings import ConfigurationStatus, RemoteSettings
from fleet_server.assignments.signer import AssignmentSigner
from fleet_server.assignments.signer_client import VersionTakenError
from fleet_server.clock import unix_ms
from fleet_server.commands import reported, wiring
from fleet_server.commands.archive import LOGS_KEPT, Filters
from fleet_server.commands.configurations import ConfigurationBody
from fleet_server.commands.issuing import MAX_PER_MINUTE
from fleet_server.commands.schemas import CommandSummary, CommandView
from fleet_server.commands.signer import SequenceNotHigherError
from fleet_server.commands.signing import SignCommand
from fleet_server.commands.states import CommandState, Standing, standings
from fleet_server.commands.tables import DeviceCommand, DeviceConfiguration
from fleet_server.database import Database
from fleet_server.devices import terms
from fleet_server.devices.tables import Device
from fleet_server.errors import ConflictError, NotFoundError, RefusedError, ThrottledError
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.conftest import FakeClock

DEVICES = ("cam-001", "cam-002", "cam-003")


@dataclass
class Broker:
    """Keeps what is published, as retained messages are."""

    retained: dict[str, bytes] = field(default_factory=dict)

    def publish_commands(self, device_id: str, mailbox: bytes) -> None:
        self.retained[device_id] = mailbox

    async def publish_mailboxes(self, mailboxes: AsyncIterator[tuple[str, bytes]]) -> None:
        async for device_id, mailbox in mailboxes:
            self.publish_commands(device_id, mailbox)


@dataclass
class DirectSigner:
    """The real signer without its process."""

    signer: AssignmentSigner

    async def sign_commands(self, requests: list[SignCommand]) -> list[bytes]:
        try:
            return [document.encode() for document in self.signer.commands.sign(requests)]
        except SequenceNotHigherError as error:
            raise VersionTakenError(str(error), highest=error.highest) from error


@dataclass
class World:
    database: Database
    clock: FakeClock
    signer: DirectSigner
    broker: Broker = field(default_factory=Broker)

    def server(self) -> wiring.CommandServices:
        return wiring.wired(self.database, self.clock, signer=self.signer, downlink=self.broker)

    @property
    def now_ms(self) -> int:
        return unix_ms(self.clock())

    def mailbox(self, device_id: str = DEVICES[0]) -> list[int]:
        """Return the sequences in what the broker retains."""
        envelopes = decode_mailbox(self.broker.retained[device_id]).commands
        return [decode_command(payload_of(one)).sequence for one in envelopes]

    def actions(self, device_id: str) -> list[object]:
        envelopes = decode_mailbox(self.broker.retained[device_id]).commands
        return [action_of(decode_command(payload_of(one))) for one in envelopes]

    async def order(self, *devices: str, action: object = None) -> list[DeviceCommand]:
        return await self.server().issuing.issue(
            devices=devices or DEVICES[:1],
            action=action or Diagnostics(),  # type: ignore[arg-type]
            lifetime_s=3600,
            who="ann",
        )

    def answer(self, command_id: str, outcome: Outcome = Outcome.DONE, **more: object) -> Answer:
        made = {"command_id": command_id, "outcome": outcome, "detail": "said", "ended_ms": 5}
        return Answer(**(made | more))  # type: ignore[arg-type]


@pytest.fixture
async def world(
    fleet: Fleet, database: Database, clock: FakeClock, invitations: dict[str, str]
) -> World:
    async with database.writing() as session:
        for device_id in DEVICES:
            device = Device(
                id=device_id,
                claim=invitations[device_id],
                public_key_pem="",
                public_key_sha256="",
                certificate_pem="",
                certificate_serial="",
                certificate_expires_ms=0,
                enrolled_ms=0,
                online=True,
                last_seen_ms=unix_ms(clock()),
                labels="{}",
                facts="{}",
            )
            session.add(device)
            await session.flush()
            await terms.add(session, device)
    return World(database, clock, DirectSigner(AssignmentSigner.open(fleet.data, clock)))


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
        await reported.take(session, "cam-001", said, world.now_ms)
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


async def test_a_device_that_is_away_is_commanded_when_it_is_back(world: World) -> None:
    await world.server().configurations.put("one", body("id=cam-001", log_level="debug"))
    world.clock.advance(hours=1)
    assert await configured(world) == {}
    async with world.database.writing() as session:
        (await session.get_one(Device, "cam-001")).last_seen_ms = world.now_ms
    assert await configured(world) == {"cam-001": "one"}

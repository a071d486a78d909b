"""Attacks on commands: by whoever owns the broker, and by the thief of the signer's key."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from fleet_protocol.command_answers import Outcome
from fleet_protocol.commands import MAX_MAILBOX_BYTES
from fleet_protocol.messages import EventKind
from tests.simulators.commanding import (
    HOUR_MS,
    arrive,
    command,
    envelope,
    give,
    mailbox,
    outcomes,
)
from tests.simulators.hostile_fleet import World

Make = Callable[[World], bytes]


def good(world: World, sequence: int = 50, **changes: object) -> dict[str, object]:
    return command(sequence, now_ms=world.device.clock.now_ms()) | changes


def signed(world: World, payload: Mapping[str, object], **options: Any) -> bytes:  # noqa: ANN401 (handed on as it is)
    return mailbox(envelope(payload, options.pop("signer", world.director.key), **options))


def forged(world: World) -> bytes:
    return signed(world, good(world), signer=CryptoSigner.generate_ed25519())


def root_key(world: World) -> bytes:
    """A key of the fleet, but not the one for this."""
    return signed(world, good(world), signer=world.director.root_key)


def unsigned(world: World) -> bytes:
    made = envelope(good(world), world.director.key)
    made["signatures"][0]["sig"] = ""  # type: ignore[index]
    return mailbox(made)


def other_device(world: World) -> bytes:
    return signed(world, good(world, device_id="cam-02"))


def changed(world: World) -> bytes:
    made = envelope(good(world), world.director.key)
    made["payload"] = envelope(good(world, sequence=99), world.director.key)["payload"]
    return mailbox(made)


def other_type(world: World) -> bytes:
    """What the same key signed as something else."""
    made = envelope(good(world), world.director.key, payload_type="text/plain")
    made["payloadType"] = "application/vnd.skerry.command+json"
    return mailbox(made)


def assignment_as_command(world: World) -> bytes:
    """A document of the same key: its bytes and its signature, in an envelope."""
    document = json.loads(world.assignments[-1])
    made = envelope(document["signed"], world.director.key)
    (signature,) = document["signatures"]
    made["signatures"][0]["sig"] = signature["sig"]  # type: ignore[index]
    return mailbox(made)


def long_lived(world: World) -> bytes:
    now_ms = world.device.clock.now_ms()
    return signed(world, good(world, expires_ms=now_ms + 25 * HOUR_MS))


def malformed(world: World) -> bytes:
    return signed(world, {"id": "x"})


def sequence_beyond_the_end(world: World) -> bytes:
    return signed(world, good(world, sequence=2**60))


REFUSED: dict[str, tuple[Make, str]] = {
    "forged": (forged, "not validly signed"),
    "the key of another role": (root_key, "not validly signed"),
    "unsigned": (unsigned, "not validly signed"),
    "another device": (other_device, "is for cam-02"),
    "payload exchanged": (changed, "not validly signed"),
    "signed as another type": (other_type, "not validly signed"),
    "an assignment as a command": (assignment_as_command, "not validly signed"),
    "lives too long": (long_lived, "more than a day"),
    "malformed": (malformed, "not a command"),
    "sequence beyond the end": (sequence_beyond_the_end, "not a command"),
    "endless": (lambda _world: b" " * (MAX_MAILBOX_BYTES + 1), "at most"),
    "deeply nested": (lambda _world: b"[" * 50_000, "not a mailbox"),
    "deeply nested where nothing is read": (lambda _w: b'{"x":' * 20_000, "not a mailbox"),
    "not a mailbox": (lambda _world: b'{"commands": [{}]}', "not a mailbox"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_command_changes_nothing_and_is_told(world: World, name: str) -> None:
    make, sentence = REFUSED[name]
    device = world.device
    before = device.events()
    assert await arrive(device, make(world)) == []
    told = [event for event in device.events() if event not in before]
    assert [event.kind for event in told] == [EventKind.DELIVERY_REFUSED]
    assert sentence in told[0].detail
    world.call()
    assert outcomes(await give(device, good(world, 1))) == [Outcome.DONE]


async def replay(world: World) -> None:
    asked = good(world)
    assert len(await give(world.device, asked)) == 1
    world.device.clock.advance(60)
    assert await give(world.device, asked) == []


async def replay_after_the_database_is_lost(world: World) -> None:
    device = world.device
    assert len(await give(device, asked := good(world))) == 1
    await device.kill()
    for path in device.state.root.glob("state.db*"):
        path.unlink()
    device.start()
    await device.parts.prepare()
    assert await give(device, asked) == []


async def expired_behind_a_clock_that_is_turned_back(world: World) -> None:
    """The trusted time has a floor: turning the clock back revives no command."""
    device = world.device
    asked = good(world)
    device.clock.advance(2 * 3600)
    await device.step()
    await device.database.transact(
        lambda connection: device.parts.command_desk._trusted_clock.trust(
            connection, device.parts.command_desk._trusted_clock.now(connection)
        )
    )
    device.clock.set_wall_clock(device.clock.now_ms() - 2 * HOUR_MS)
    assert outcomes(await give(device, asked)) == [Outcome.REFUSED]


async def held_back(world: World) -> None:
    """Whoever owns the broker may leave commands out, and run none out of order by that."""
    first, second = good(world, 1), good(world, 2)
    assert len(await give(world.device, second)) == 1
    world.device.clock.advance(60)
    assert await give(world.device, first) == []


@pytest.mark.parametrize(
    "attack",
    [
        replay,
        replay_after_the_database_is_lost,
        expired_behind_a_clock_that_is_turned_back,
        held_back,
    ],
    ids=lambda attack: attack.__name__.replace("_", " "),
)
async def test_nothing_runs_twice_or_late(
    world: World, attack: Callable[[World], Awaitable[None]]
) -> None:
    await attack(world)
    world.call()


async def test_a_thief_of_the_key_installs_nothing_and_stops_nothing(world: World) -> None:
    """It can ask for what the types can say, and for each only so often."""
    device = world.device
    active, ended = device.active(), device.ended_runtimes
    for sequence in range(1, 200):
        actions = [
            {"kind": "restart_runtime"},
            {"kind": "install", "path": "models/evil"},
            {"kind": "logs", "path": "/etc/shadow"},
            {"kind": "configure", "version": 1, "settings": {"runtime": {"host": "::"}}},
        ]
        await give(device, good(world, sequence, action=actions[sequence % len(actions)]))
        world.call()
        device.clock.advance(5)
    assert device.active() == active
    assert device.ended_runtimes - ended <= 2
    assert device.runtime.status().failed == {}


async def test_a_replaced_key_commands_nothing_and_its_sequences_are_undone(world: World) -> None:
    device, director = world.device, world.director
    thief = director.key
    assert len(await give(device, good(world, 2**53))) == 1
    root = director.rotate(2)
    world.repository.put_director_root(2, root)
    device.clock.advance(60)
    stolen = good(world, 2**53)
    assert await arrive(device, mailbox(envelope(stolen, thief))) == []
    assert outcomes(await give(device, good(world, 1))) == [Outcome.DONE]
    world.call()

"""Copies of an assignment that the broker's owner has written down anew, without any key.

Every one of them is validly signed: it is the fleet's list. What must not come of it is that the
fleet's own copy is refused as another document of the same version.
"""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from fleet_protocol.messages import EventKind
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release
from tests.simulators.hostile_fleet import FAMILY, GOOD, NEXT, Attacker, World

Writing = Callable[[bytes], bytes]


def in_other_spaces(document: bytes) -> bytes:
    return json.dumps(json.loads(document), indent=3).encode()


def in_another_order(document: bytes) -> bytes:
    content = json.loads(document)
    signed = dict(reversed(content["signed"].items()))
    return json.dumps({"signed": signed, "signatures": content["signatures"]}).encode()


def with_a_strangers_signature(document: bytes) -> bytes:
    content = json.loads(document)
    content["signatures"].insert(0, {"keyid": "0" * 64, "sig": "0" * 128})
    return json.dumps(content).encode()


def with_a_field_that_nobody_signed(document: bytes) -> bytes:
    return json.dumps(json.loads(document) | {"x-note": 1}).encode()


WRITINGS: dict[str, Writing] = {
    "in other spaces": in_other_spaces,
    "in another order": in_another_order,
    "with a stranger's signature": with_a_strangers_signature,
    "with a field that nobody signed": with_a_field_that_nobody_signed,
}


@pytest.mark.parametrize("name", WRITINGS)
async def test_the_fleets_own_copy_is_taken_after_one_of_the_brokers_owner(
    world: World, name: str
) -> None:
    world.publishes(NEXT)
    document = world.director.assign(DEVICE, len(world.assignments) + 1, [NEXT])
    copy = WRITINGS[name](document)
    assert copy != document
    before = len(world.device.events(EventKind.ASSIGNMENT_ACCEPTED))
    for one in (copy, document, copy, document):
        await Attacker(world, frozenset()).sends(one)
        world.call()
    await world.endure(rounds=40)
    assert len(world.device.events(EventKind.ASSIGNMENT_ACCEPTED)) == before + 1
    assert world.device.events(EventKind.ASSIGNMENT_REFUSED) == []
    assert world.device.active() == {FAMILY: NEXT.manifest.version}


async def test_it_is_taken_by_a_device_that_lost_its_database_too(world: World) -> None:
    """What is left is the hash in the second copy of what must not go down."""
    document = world.director.assign(DEVICE, len(world.assignments) + 1, [GOOD])
    await world.device.receive(in_other_spaces(document))
    await world.device.kill()
    for path in world.device.state.root.glob("state.db*"):
        path.unlink()
    world.device.start()
    await world.device.parts.prepare()
    await world.device.receive(document)
    assert world.device.events()[-1].kind is EventKind.ASSIGNMENT_ACCEPTED
    world.call()


async def test_another_list_of_the_same_version_stays_refused(world: World) -> None:
    await world.device.receive(in_other_spaces(world.assignments[-1]))
    assert world.device.events(EventKind.ASSIGNMENT_REFUSED) == []
    other = world.director.assign(DEVICE, len(world.assignments), [NEXT])
    await world.device.receive(other)
    (refused,) = world.device.events(EventKind.ASSIGNMENT_REFUSED)
    assert refused.detail == "two different assignments have version 2"
    world.call()


async def test_an_assignment_that_an_older_agent_accepted_is_known_again(world: World) -> None:
    """It kept the hash of the bytes alone, whoever's copy that was."""
    mine = world.assignments[-1]
    await written_by_an_older_agent(world.device)
    accepted = len(world.device.events(EventKind.ASSIGNMENT_ACCEPTED))
    for copy in (mine, in_other_spaces(mine), mine):
        await world.device.receive(copy)
    assert world.device.events(EventKind.ASSIGNMENT_REFUSED) == []
    assert len(world.device.events(EventKind.ASSIGNMENT_ACCEPTED)) == accepted

    await written_by_an_older_agent(world.device)
    other = world.director.assign(DEVICE, len(world.assignments), [release("1.1.0")])
    await world.device.receive(other)
    assert len(world.device.events(EventKind.ASSIGNMENT_REFUSED)) == 1
    world.call()


async def written_by_an_older_agent(device: ControlDevice) -> None:
    """Turn the database into what it was before what was signed had a hash, and start."""
    await device.kill()
    with closing(sqlite3.connect(device.state.root / "state.db")) as connection:
        connection.execute("ALTER TABLE assignment DROP COLUMN signed_sha256")
        connection.execute("PRAGMA user_version = 3")
    device.start()
    await device.parts.prepare()

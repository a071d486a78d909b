"""Chains of roots: what the age of a root means, and what keys of an earlier one are worth."""

from datetime import timedelta
from functools import partial

import pytest

from edge_agent.control.server_client import METADATA_ROUTE
from fleet_protocol.messages import EventKind
from tests.attacks.attack import ONLINE_ROLES, Attack, repelled
from tests.simulators.control_device import DEVICE
from tests.simulators.device_releases import release
from tests.simulators.device_repository import START
from tests.simulators.hostile_fleet import FAMILY, NEXT, Attacker, World

PAST = START - timedelta(days=1)
REFUSED = EventKind.DELIVERY_REFUSED
LAST = release("2.0.0", security_counter=2)


async def old_online_keys(attacker: Attacker, *, kept: frozenset[str], hiding: str = "") -> None:
    """Keys that a root has replaced sign newer metadata, for a device that has followed it."""
    world = attacker.world
    attacker.keeps(*kept)
    world.repository.rotate(*kept)
    assert await world.device.parts.freshness.check()
    await world.wants(NEXT)
    world.repository.files.pop(METADATA_ROUTE + hiding, None)
    role = world.repository.metadata(f"{attacker.newest}.{FAMILY}.json")
    attacker.publishes(role, version=attacker.newest)


ATTACKS = {
    "old online keys": Attack(
        partial(old_online_keys, kept=ONLINE_ROLES),
        (REFUSED, "timestamp was signed by 0/1 keys"),
        holds=ONLINE_ROLES,
    ),
    "old snapshot key under the new timestamp key": Attack(
        partial(old_online_keys, kept=frozenset({"snapshot"})),
        (REFUSED, "snapshot was signed by 0/1 keys"),
        holds=ONLINE_ROLES,
    ),
    "old online keys, the root that replaced them hidden": Attack(
        partial(old_online_keys, kept=ONLINE_ROLES, hiding="2.root.json"),
        (REFUSED, "timestamp was signed by 0/1 keys"),
        holds=ONLINE_ROLES,
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(world: World, name: str) -> None:
    await repelled(world, ATTACKS[name])


async def test_only_the_age_of_the_last_root_of_the_repository_counts(world: World) -> None:
    """A device that was away for long comes past roots that have expired since (5.3.10)."""
    repository = world.repository
    repository.rotate("snapshot", expires=PAST)
    repository.rotate("timestamp")
    await world.wants(NEXT)
    await world.device.settle()
    assert world.device.active() == {FAMILY: NEXT.manifest.version}

    repository.rotate("timestamp", expires=PAST)
    await world.wants(LAST)
    await world.endure()
    assert "root.json is expired" in world.device.events(REFUSED)[-1].detail
    assert world.device.active() == {FAMILY: NEXT.manifest.version}

    repository.rotate("timestamp")
    await world.device.settle()
    assert world.device.active() == {FAMILY: LAST.manifest.version}


async def test_only_the_age_of_the_last_director_root_counts(world: World) -> None:
    repository, director = world.repository, world.director
    repository.put_director_root(2, director.rotate(2, expires=PAST))
    repository.put_director_root(3, director.rotate(3))
    await world.wants(NEXT)
    await world.device.settle()
    assert world.device.active() == {FAMILY: NEXT.manifest.version}

    repository.put_director_root(4, director.rotate(4, expires=PAST))
    await world.wants(LAST)
    await world.endure()
    (refused,) = world.device.events(EventKind.ASSIGNMENT_REFUSED)
    assert "the director's root expired on" in refused.detail
    assert world.device.active() == {FAMILY: NEXT.manifest.version}

    repository.put_director_root(5, director.rotate(5))
    await world.device.receive(director.assign(DEVICE, 9, [LAST]))
    await world.device.settle()
    assert world.device.active() == {FAMILY: LAST.manifest.version}

"""Attacks on the release repository's metadata: rollback of every role, mixing, freezing."""

from datetime import timedelta

import pytest

from fleet_protocol.messages import EventKind
from tests.attacks.attack import Attack, repelled
from tests.simulators.device_repository import START
from tests.simulators.hostile_fleet import NEXT, Attacker, World

REFUSED = EventKind.DELIVERY_REFUSED


async def old_timestamp(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.replays("timestamp.json", of=0)


async def old_snapshot(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.replays(f"{attacker.newest - 1}.snapshot.json", of=1, under=_newest(attacker))


async def old_snapshot_stamped_anew(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.stamps(attacker.newest + 1, snapshot=attacker.newest - 2)


async def old_root(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.replays("1.root.json", of=0, under="2.root.json")


async def old_targets(attacker: Attacker) -> None:
    attacker.world.repository.rotate("publisher")
    await attacker.world.wants(NEXT)
    attacker.replays("1.targets.json", of=0, under="2.targets.json")


async def old_family_role(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    name = f"{attacker.newest}.animals.json"
    attacker.replays(f"{attacker.newest - 1}.animals.json", of=1, under=name)


async def old_family_role_in_a_new_snapshot(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    old = attacker.newest - 2
    role = attacker.world.recorded[0][f"/device/v1/repository/metadata/{old}.animals.json"]
    attacker.publishes(role, version=old)


async def another_role_in_the_place_of_one(attacker: Attacker) -> None:
    """Mix-and-match: every file is signed, and none is the one that belongs there."""
    await attacker.world.wants(NEXT)
    attacker.replays("1.plants.json", of=0, under=f"{attacker.newest}.animals.json")


async def role_taken_out_of_the_snapshot(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    plants = attacker.world.recorded[0]["/device/v1/repository/metadata/1.plants.json"]
    attacker.publishes(plants, version=1, family="plants", leaving_out="animals")


ATTACKS = {
    "rollback of timestamp": Attack(
        old_timestamp, (REFUSED, r"New timestamp version \d+ must be >= \d+")
    ),
    "rollback of snapshot": Attack(old_snapshot, (REFUSED, r"Expected snapshot version \d+, got")),
    "rollback of snapshot under a new timestamp": Attack(
        old_snapshot_stamped_anew,
        (REFUSED, r"New snapshot version must be >= \d+, got"),
        holds=frozenset({"timestamp"}),
    ),
    "rollback of root": Attack(
        old_root, (REFUSED, "Expected root version 2 instead got version 1")
    ),
    "rollback of targets": Attack(old_targets, (REFUSED, "Expected targets v2, got v1")),
    "rollback of a family's role": Attack(old_family_role, (REFUSED, r"Expected animals v\d, got")),
    "rollback of a family's role with the online keys": Attack(
        old_family_role_in_a_new_snapshot,
        (REFUSED, r"Expected animals\.json version \d+, got \d+"),
        holds=frozenset({"snapshot", "timestamp"}),
    ),
    "mix-and-match": Attack(
        another_role_in_the_place_of_one, (REFUSED, "animals was signed by 0/1")
    ),
    "a role left out": Attack(
        role_taken_out_of_the_snapshot,
        (REFUSED, r"New snapshot is missing info for 'animals\.json'"),
        holds=frozenset({"snapshot", "timestamp"}),
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(world: World, name: str) -> None:
    await repelled(world, ATTACKS[name])


async def test_a_freeze_raises_an_alarm(world: World) -> None:
    """Nothing is wrong with what it is shown, only that it never becomes newer."""
    world.repository.publish(timestamp_expires=START + timedelta(days=1))
    frozen = dict(world.repository.files)
    assert await world.device.parts.freshness.check()
    world.publishes(NEXT)
    world.repository.files = frozen
    for _ in range(30):
        await world.device.parts.freshness.check()
        await world.endure(rounds=1, pause_s=3600)
    (alarm,) = world.device.events(EventKind.METADATA_STALE)
    assert "expired on 2027-01-16 08:00 UTC, and nothing newer could be verified" in alarm.detail
    situation = world.device.parts.observation.situation
    assert situation is not None
    assert situation.alarms == (alarm.detail,)


def _newest(attacker: Attacker) -> str:
    return f"{attacker.newest}.snapshot.json"

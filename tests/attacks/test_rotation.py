"""A stolen key, and what its replacement by the offline keys takes from the thief."""

import pytest
from securesystemslib.signer import CryptoSigner

from fleet_protocol.messages import EventKind
from tests.attacks.attack import Attack, repelled
from tests.simulators.control_device import DEVICE
from tests.simulators.hostile_fleet import FAMILY, GOOD, NEXT, OLD, Attacker, World, listed

THE_END = 2**53


async def own_director_root(attacker: Attacker) -> None:
    """The thief of the assignment key names a key of its own, which only root may do."""
    director, thief = attacker.world.director, CryptoSigner.generate_ed25519()
    attacker.world.repository.put_director_root(2, director.make_root(2, thief, thief))
    document = director.assign_targets(DEVICE, 99, listed(OLD), signer=thief)
    await attacker.sends(document)


async def director_root_signed_by_the_assignment_key(attacker: Attacker) -> None:
    director = attacker.world.director
    link = director.make_root(2, attacker.key("assignment"), attacker.key("assignment"))
    attacker.world.repository.put_director_root(2, link)
    await attacker.sends(b"wake up")


async def slow_director_root(attacker: Attacker) -> None:
    attacker.world.repository.faults.too_slow = "2.root.json"
    await attacker.sends(b"wake up")


async def replaced_assignment_key(attacker: Attacker) -> None:
    """Stolen before its rotation, used after the device has heard of that."""
    world = attacker.world
    attacker.keeps("assignment")
    world.repository.put_director_root(2, world.director.rotate(2))
    world.publishes(NEXT)
    await world.assigns(GOOD)
    await attacker.assigns(listed(NEXT), ahead=5)


async def old_director_root(attacker: Attacker) -> None:
    """The root of before a rotation, under the number of the next one."""
    world = attacker.world
    world.repository.put_director_root(2, world.director.rotate(2))
    await world.assigns(GOOD)
    world.repository.put_director_root(3, world.director.root)
    await attacker.sends(b"wake up")


REFUSED = EventKind.DELIVERY_REFUSED
ATTACKS = {
    "the replaced assignment key": Attack(
        replaced_assignment_key,
        (EventKind.ASSIGNMENT_REFUSED, "not validly signed: .* was signed by 0/1 keys"),
        holds=frozenset({"assignment"}),
    ),
    "rollback of the director's root": Attack(
        old_director_root,
        (REFUSED, "director's next root was refused: director root 1 does not follow 2"),
    ),
    "a director root of a key of its own": Attack(
        own_director_root, (REFUSED, "director's next root was refused: .* signed by 0/1 keys")
    ),
    "a director root by the assignment key": Attack(
        director_root_signed_by_the_assignment_key,
        (REFUSED, "director's next root was refused: .* signed by 0/1 keys"),
        holds=frozenset({"assignment"}),
    ),
    "a director root that trickles": Attack(
        slow_director_root, (REFUSED, "cannot fetch the director's next root: the server sent 1")
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(world: World, name: str) -> None:
    await repelled(world, ATTACKS[name])


async def test_a_stolen_assignment_key_is_worth_nothing_after_its_rotation(world: World) -> None:
    """The thief has used the numbers up before; the fleet's count begins anew above its root."""
    stolen = world.director.key
    thief = Attacker(world, frozenset({"assignment"}))
    await thief.assigns(listed(GOOD), ahead=THE_END - len(world.assignments))
    await world.assigns(NEXT)
    refused = world.device.events(EventKind.ASSIGNMENT_REFUSED)[-1]
    assert "this device accepted 9007199254740992 already" in refused.detail

    world.repository.put_director_root(2, world.director.rotate(2))
    world.publishes(NEXT)
    await world.device.receive(world.director.assign(DEVICE, 1, [NEXT]))
    await world.device.settle()
    assert world.device.active() == {FAMILY: NEXT.manifest.version}
    world.call()

    again = world.director.assign_targets(DEVICE, THE_END, listed(GOOD), signer=stolen)
    await world.device.receive(again)
    refused = world.device.events(EventKind.ASSIGNMENT_REFUSED)[-1]
    assert "signed by 0/1 keys" in refused.detail
    await world.endure(rounds=5)
    assert world.device.active() == {FAMILY: NEXT.manifest.version}

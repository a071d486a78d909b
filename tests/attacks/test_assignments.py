"""Attacks on the assignment: by whoever owns the broker, and by the thief of the signer's key."""

import asyncio
import json
from dataclasses import replace

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile

from fleet_protocol.assignments import MAX_ASSIGNMENT_BYTES
from fleet_protocol.messages import EventKind
from fleet_protocol.update_states import UpdateState
from tests.attacks.attack import Attack, repelled
from tests.simulators.control_device import DEVICE
from tests.simulators.device_releases import release
from tests.simulators.device_repository import target_file
from tests.simulators.hostile_fleet import EVIL, FAMILY, GOOD, NEXT, OLD, Attacker, World, listed

REFUSED = EventKind.ASSIGNMENT_REFUSED
SIGNER = frozenset({"assignment"})


async def wrong_device(attacker: Attacker) -> None:
    """The broker hands over what was signed for another device."""
    await attacker.sends(attacker.world.director.assign("cam-02", 99, [NEXT]))


async def replayed(attacker: Attacker) -> None:
    await attacker.sends(attacker.world.assignments[0])


async def replayed_after_the_cache_is_lost(attacker: Attacker) -> None:
    """What must not go down is kept twice: the database may be lost."""
    device = attacker.world.device
    await device.kill()
    for path in device.state.root.glob("state.db*"):
        path.unlink()
    device.start()
    await device.parts.prepare()
    await attacker.sends(attacker.world.assignments[0])


async def emptied(attacker: Attacker) -> None:
    """The list is taken out of a signed document."""
    document = json.loads(attacker.world.assignments[-1])
    document["signed"]["targets"] = {}
    document["signed"]["version"] += 1
    await attacker.sends(json.dumps(document).encode())


async def forged(attacker: Attacker) -> None:
    document = attacker.world.director.assign_targets(
        DEVICE, 99, listed(NEXT), signer=CryptoSigner.generate_ed25519()
    )
    await attacker.sends(document)


async def root_as_assignment(attacker: Attacker) -> None:
    """A document that a fleet's key did sign, as something else."""
    director = attacker.world.director
    await attacker.sends(director.make_root(2, director.root_key, director.root_key))


async def endless(attacker: Attacker) -> None:
    await attacker.sends(b" " * (MAX_ASSIGNMENT_BYTES + 1))


async def deeply_nested(attacker: Attacker) -> None:
    await attacker.sends(b"[" * MAX_ASSIGNMENT_BYTES)


async def a_number_that_is_none(attacker: Attacker) -> None:
    document = json.loads(attacker.world.assignments[-1])
    document["signed"]["version"] = float("nan")
    await attacker.sends(json.dumps(document).encode())


async def one_signature_twice(attacker: Attacker) -> None:
    document = json.loads(attacker.world.assignments[-1])
    document["signatures"] *= 2
    await attacker.sends(json.dumps(document).encode())


async def a_signature_that_is_no_text(attacker: Attacker) -> None:
    document = json.loads(attacker.world.assignments[-1])
    document["signed"]["version"] += 1
    document["signatures"][0]["sig"] = 5
    await attacker.sends(json.dumps(document).encode())


async def a_family_that_only_looks_alike(attacker: Attacker) -> None:
    """A Cyrillic letter in the place of a Latin one."""
    path = NEXT.manifest_path.replace("animals", "\N{CYRILLIC SMALL LETTER A}nimals")
    await attacker.assigns({path: target_file(path, EVIL)})


async def a_file_without_bytes(attacker: Attacker) -> None:
    await attacker.assigns({NEXT.manifest_path: target_file(NEXT.manifest_path, b"")})


async def the_beginning_of_a_hash(attacker: Attacker) -> None:
    target = TargetFile(4096, {"sha256": "0" * 8}, NEXT.manifest_path)
    await attacker.assigns({NEXT.manifest_path: target})


async def emptied_by_the_key(attacker: Attacker) -> None:
    """Whoever signs may order a stop, but an empty list alone is not one."""
    binding: dict[str, object] = {"x-skerry-assignment": {"device_id": DEVICE, "complete": True}}
    document = attacker.world.director.assign_targets(
        DEVICE, 99, {}, fields=binding, signer=attacker.key("assignment")
    )
    await attacker.sends(document)


async def a_number_that_no_database_holds(attacker: Attacker) -> None:
    await attacker.assigns(listed(GOOD), ahead=2**64)


async def path_out_of_the_repository(attacker: Attacker) -> None:
    evil = "../../../etc/skerry/manifest.json"
    await attacker.assigns({evil: target_file(evil, EVIL)})


async def model_without_a_manifest(attacker: Attacker) -> None:
    await attacker.assigns({NEXT.model_path: target_file(NEXT.model_path, EVIL)})


async def endless_manifest(attacker: Attacker) -> None:
    target = TargetFile(2**50, {"sha256": "0" * 64}, NEXT.manifest_path)
    await attacker.assigns({NEXT.manifest_path: target})


async def release_that_nobody_published(attacker: Attacker) -> None:
    made = release("6.6.6", security_counter=9, model=EVIL)
    for path, content in made.targets().items():
        attacker.serves_file(path, content)
    await attacker.assigns(listed(made))


async def other_content_under_a_published_version(attacker: Attacker) -> None:
    attacker.world.publishes(NEXT)
    evil = replace(NEXT, manifest=release("1.1.0", security_counter=1, model=EVIL).manifest)
    attacker.serves_file(NEXT.manifest_path, evil.manifest_bytes)
    await attacker.assigns({NEXT.manifest_path: listed(evil)[evil.manifest_path]})


async def below_the_floor(attacker: Attacker) -> None:
    """Still listed, still signed, declared insecure by the release that came after it."""
    await attacker.assigns(listed(OLD))


ATTACKS = {
    "wrong device": Attack(wrong_device, (REFUSED, "is for cam-02, this device is cam-01")),
    "replayed": Attack(replayed, (REFUSED, "has version 1, this device accepted 2 already")),
    "replayed to a device that lost its database": Attack(
        replayed_after_the_cache_is_lost, (REFUSED, "has version 1, this device accepted 2 already")
    ),
    "emptied": Attack(emptied, (REFUSED, "not validly signed: .* was signed by 0/1 keys")),
    "forged": Attack(forged, (REFUSED, "not validly signed: .* was signed by 0/1 keys")),
    "another role": Attack(root_as_assignment, (REFUSED, "cannot be 'root' metadata")),
    "endless": Attack(endless, (REFUSED, "has 262145 bytes, at most 262144 are read")),
    "deeply nested": Attack(deeply_nested, (REFUSED, "not validly signed: Failed to deserialize")),
    "a number that is none": Attack(
        a_number_that_is_none, (REFUSED, "it holds what no signature can cover")
    ),
    "one signature twice": Attack(one_signature_twice, (REFUSED, "not validly signed: Failed to")),
    "a signature that is no text": Attack(
        a_signature_that_is_no_text, (REFUSED, "was signed by 0/1 keys")
    ),
    "a family that only looks alike": Attack(
        a_family_that_only_looks_alike, (REFUSED, "is not a model family"), holds=SIGNER
    ),
    "a file without bytes": Attack(
        a_file_without_bytes, (REFUSED, "would have 0 bytes"), holds=SIGNER
    ),
    "the beginning of a hash": Attack(
        the_beginning_of_a_hash, (REFUSED, "states no SHA-256"), holds=SIGNER
    ),
    "emptied with the key": Attack(
        emptied_by_the_key, (REFUSED, "0 targets says run_nothing=False"), holds=SIGNER
    ),
    "a number that no database holds": Attack(
        a_number_that_no_database_holds, (REFUSED, "at most 9007199254740992 is"), holds=SIGNER
    ),
    "a path out of the repository": Attack(
        path_out_of_the_repository, (REFUSED, "is not models/<family>/"), holds=SIGNER
    ),
    "a model without manifest": Attack(
        model_without_a_manifest, (REFUSED, "which is not a manifest"), holds=SIGNER
    ),
    "an endless manifest": Attack(
        endless_manifest, (REFUSED, r"would have 1125899906842624 bytes, at most"), holds=SIGNER
    ),
    "a release that nobody published": Attack(
        release_that_nobody_published,
        (EventKind.UPDATE_STATE, r"the release repository has no models/animals/6\.6\.6/"),
        holds=SIGNER,
    ),
    "other content under a published version": Attack(
        other_content_under_a_published_version,
        (EventKind.UPDATE_STATE, "assignment and release repository disagree about models/anim"),
        holds=SIGNER,
    ),
    "below the floor": Attack(
        below_the_floor,
        (EventKind.UPDATE_STATE, "animals 0.9.0 has security counter 0, this device accepts 1 and"),
        holds=SIGNER,
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(world: World, name: str) -> None:
    await repelled(world, ATTACKS[name])


async def test_a_flood_of_documents_is_told_without_pushing_telemetry_out(world: World) -> None:
    """Whoever owns the broker may send a thousand different documents in a minute."""
    before = len(world.device.events())
    for number in range(200):
        await world.device.receive(b"%d" % number)
    assert len(world.device.events()) - before <= 16
    await world.endure(rounds=10)
    assert world.device.record().state is UpdateState.COMMITTED


async def test_of_two_assignments_at_once_the_newer_holds(world: World) -> None:
    """Broker and server hand out what they like at the same moment, again and again."""
    world.publishes(NEXT)
    older, newer = (
        world.director.assign(DEVICE, version, [made]) for version, made in ((8, OLD), (9, NEXT))
    )
    await asyncio.gather(*map(world.device.receive, (older, newer, older, newer)))
    await world.device.settle()
    assert world.device.active() == {FAMILY: NEXT.manifest.version}
    await world.device.receive(older)
    refused = world.device.events(REFUSED)[-1]
    assert "has version 8, this device accepted 9 already" in refused.detail
    world.call()

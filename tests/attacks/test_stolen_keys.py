"""Stolen keys of the release repository, alone and together, and what rotation gives back."""

import shutil
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Targets

from edge_agent.control.release_repository import ReleaseRepository
from edge_agent.control.trust import TrustError
from fleet_protocol.messages import EventKind
from fleet_protocol.update_states import UpdateState
from tests.attacks.attack import Act, Attack, repelled
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release
from tests.simulators.device_repository import FAR_AWAY, START, signed, target_file
from tests.simulators.hostile_fleet import (
    EVIL,
    FAMILY,
    GOOD,
    NEXT,
    OLD,
    Attacker,
    World,
    listed,
)

REFUSED = EventKind.DELIVERY_REFUSED
STATE = EventKind.UPDATE_STATE
ONLINE = frozenset({"snapshot", "timestamp", "assignment"})
WRONG = release("6.6.6", security_counter=9, model=EVIL)
METADATA = "/device/v1/repository/metadata/"


async def unsigned_model(attacker: Attacker) -> None:
    """All that is online is stolen, and the thief's model is signed by a key of its own."""
    _serves(attacker)
    role = attacker.signs_role(
        WRONG.targets(), version=attacker.newest + 1, signer=CryptoSigner.generate_ed25519()
    )
    attacker.publishes(role, version=attacker.newest + 1)
    await attacker.assigns(listed(WRONG))


async def model_signed_by_an_online_key(attacker: Attacker) -> None:
    _serves(attacker)
    role = attacker.signs_role(
        WRONG.targets(), version=attacker.newest + 1, signer=attacker.key("snapshot")
    )
    attacker.publishes(role, version=attacker.newest + 1)
    await attacker.assigns(listed(WRONG))


async def family_role_under_the_targets_role(attacker: Attacker) -> None:
    """The thief replaces the role that names the publishers."""
    role = attacker.signs_role(
        WRONG.targets(),
        version=attacker.world.repository.offline_version,
        signer=attacker.key("snapshot"),
    )
    attacker.serves("2.targets.json", role)
    attacker.publishes(role, version=2, family="targets")
    await attacker.assigns(listed(WRONG))


async def older_model_still_listed(attacker: Attacker) -> None:
    await attacker.assigns(listed(OLD))


async def older_targets_to_a_device_without_its_cache(attacker: Attacker) -> None:
    """No cache, no database: only the second copy of the floors is left."""
    device = attacker.world.device
    await device.kill()
    shutil.rmtree(device.state.trust)
    for path in device.state.root.glob("state.db*"):
        path.unlink()
    device.start()
    await device.parts.prepare()
    old = attacker.newest - 1
    role = attacker.world.recorded[0][f"{METADATA}{old}.animals.json"]
    attacker.publishes(role, version=old)
    await attacker.assigns(listed(OLD))


async def yanked_model_under_a_raised_floor(attacker: Attacker) -> None:
    """The publisher yanked and raised the floor; the thief hands the list of before out again."""
    world, device = attacker.world, attacker.world.device
    world.publishes(NEXT)
    version = attacker.newest
    before = world.recorded[-1][f"{METADATA}{version}.animals.json"]
    world.repository.withdraw(NEXT.manifest.version, floor=2)
    world.recorded.append(dict(world.repository.files))
    assert await device.parts.freshness.check()
    await device.kill()
    shutil.rmtree(device.state.trust)
    device.start()
    await device.parts.prepare()
    attacker.publishes(before, version=version)
    await attacker.assigns(listed(NEXT))


async def other_familys_publisher(attacker: Attacker) -> None:
    """The publisher of plants signs a release of animals, in its own role."""
    _serves(attacker)
    role = attacker.signs_role(WRONG.targets(), version=2, signer=attacker.key("publisher:plants"))
    attacker.publishes(role, version=2, family="plants")
    await attacker.assigns(listed(WRONG))


async def other_familys_publisher_in_this_familys_role(attacker: Attacker) -> None:
    _serves(attacker)
    version = attacker.newest + 1
    role = attacker.signs_role(
        WRONG.targets(), version=version, signer=attacker.key("publisher:plants")
    )
    attacker.publishes(role, version=version)
    await attacker.assigns(listed(WRONG))


async def manifest_of_another_family(attacker: Attacker) -> None:
    """The publisher signs a manifest of another family under this one's path."""
    plants = release("6.6.6", family="plants", security_counter=9, model=EVIL)
    path = WRONG.manifest_path
    version = attacker.newest + 1
    role = attacker.signs_role(
        {path: plants.manifest_bytes}, version=version, signer=attacker.key("publisher")
    )
    attacker.publishes(role, version=version)
    attacker.serves_file(path, plants.manifest_bytes)
    await attacker.assigns({path: listed(plants)[plants.manifest_path]})


async def path_in_a_signed_manifest(attacker: Attacker) -> None:
    """Path traversal by the publisher: the name of a variant's file leads out of the folder."""
    text = WRONG.manifest_bytes.replace(b'"model.onnx"', b'"../../../../etc/x"')
    version = attacker.newest + 1
    role = attacker.signs_role(
        {WRONG.manifest_path: text}, version=version, signer=attacker.key("publisher")
    )
    attacker.publishes(role, version=version)
    attacker.serves_file(WRONG.manifest_path, text)
    await attacker.assigns({WRONG.manifest_path: target_file(WRONG.manifest_path, text)})


async def file_that_the_manifest_does_not_state(attacker: Attacker) -> None:
    """The list has another model than the manifest beside it, which the fleet assigned."""
    await attacker.world.wants(NEXT)
    version = attacker.newest + 1
    files = {**GOOD.targets(), **NEXT.targets(), NEXT.model_path: EVIL}
    attacker.publishes(
        attacker.signs_role(files, version=version, signer=attacker.key("publisher")),
        version=version,
    )
    attacker.serves_file(NEXT.model_path, EVIL)


async def yanked_model(attacker: Attacker) -> None:
    """The publisher has yanked it without raising the floor; the thief of the signer assigns it."""
    attacker.world.publishes(NEXT)
    attacker.world.repository.withdraw(NEXT.manifest.version)
    attacker.world.recorded.append(dict(attacker.world.repository.files))
    await attacker.assigns(listed(NEXT))


async def publisher_without_the_signer(attacker: Attacker) -> None:
    """The model of the next version is replaced where it is published; the fleet assigned it."""
    evil = release("1.1.0", security_counter=1, model=EVIL)
    await attacker.world.wants(NEXT)
    version = attacker.newest + 1
    role = attacker.signs_role(
        {**GOOD.targets(), **evil.targets()}, version=version, signer=attacker.key("publisher")
    )
    attacker.publishes(role, version=version)
    for path, content in evil.targets().items():
        attacker.serves_file(path, content)


async def publisher_who_changes_what_runs(attacker: Attacker) -> None:
    """Same version, other content: with every key but root and targets."""
    evil = release("1.0.0", security_counter=1, model=EVIL)
    version = attacker.newest + 1
    role = attacker.signs_role(evil.targets(), version=version, signer=attacker.key("publisher"))
    attacker.publishes(role, version=version)
    for path, content in evil.targets().items():
        attacker.serves_file(path, content)
    await attacker.assigns(listed(evil))


ATTACKS = {
    "online keys: unsigned model": Attack(
        unsigned_model, (REFUSED, "animals was signed by 0/1 keys"), holds=ONLINE
    ),
    "online keys: model signed by one of them": Attack(
        model_signed_by_an_online_key, (REFUSED, "animals was signed by 0/1 keys"), holds=ONLINE
    ),
    "online keys: another targets role": Attack(
        family_role_under_the_targets_role,
        (REFUSED, "targets was signed by 0/1 keys"),
        holds=ONLINE,
    ),
    "online keys: older model, listed, below the floor": Attack(
        older_model_still_listed,
        (STATE, "has security counter 0, this device accepts 1 and higher"),
        holds=ONLINE,
    ),
    "online keys: older targets to a device that lost cache and database": Attack(
        older_targets_to_a_device_without_its_cache,
        (STATE, "has security counter 0, this device accepts 1 and higher"),
        holds=ONLINE,
    ),
    "online keys: yanked model, the floor raised since": Attack(
        yanked_model_under_a_raised_floor,
        (STATE, "has security counter 1, this device accepts 2 and higher"),
        holds=ONLINE,
    ),
    "assignment key: yanked model": Attack(
        yanked_model,
        (STATE, r"animals 1\.1\.0 was withdrawn by its publisher: mislabelled"),
        holds=frozenset({"assignment"}),
    ),
    "publisher: another file than the manifest's": Attack(
        file_that_the_manifest_does_not_state,
        (STATE, "manifest and release repository disagree about .*model.onnx"),
        holds=frozenset({"publisher", "snapshot", "timestamp"}),
    ),
    "publisher of another family, own role": Attack(
        other_familys_publisher,
        (STATE, r"the release repository has no models/animals/6\.6\.6/manifest\.json"),
        holds=ONLINE | {"publisher:plants"},
    ),
    "publisher of another family, foreign role": Attack(
        other_familys_publisher_in_this_familys_role,
        (REFUSED, "animals was signed by 0/1 keys"),
        holds=ONLINE | {"publisher:plants"},
    ),
    "publisher: manifest of another family": Attack(
        manifest_of_another_family,
        (STATE, "holds the manifest of plants 6.6.6"),
        holds=ONLINE | {"publisher"},
    ),
    "publisher: path traversal": Attack(
        path_in_a_signed_manifest,
        (STATE, "the manifest cannot be used: .*file"),
        holds=ONLINE | {"publisher"},
    ),
    "publisher: not the assignment key": Attack(
        publisher_without_the_signer,
        (STATE, "assignment and release repository disagree about"),
        holds=frozenset({"publisher", "snapshot", "timestamp"}),
    ),
    "publisher: same version, other content": Attack(
        publisher_who_changes_what_runs,
        (STATE, "was published again with other content; a version never changes"),
        holds=ONLINE | {"publisher"},
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(world: World, name: str) -> None:
    await repelled(world, ATTACKS[name])


async def test_a_publisher_cannot_put_a_role_in_the_place_of_another_family(
    world: World, tmp_path: Path
) -> None:
    """Its list delegates to a role that is called like the other family, under its own paths."""
    attacker = Attacker(world, ONLINE | {"publisher:plants"})
    thief, version = attacker.key("publisher:plants"), attacker.newest + 1
    shadow = DelegatedRole(
        name=FAMILY,
        keyids=[thief.public_key.keyid],
        threshold=1,
        terminating=True,
        paths=["models/plants/*/*"],
    )
    delegations = Delegations({thief.public_key.keyid: thief.public_key}, {FAMILY: shadow})
    plants = Targets(version=2, expires=START + FAR_AWAY, delegations=delegations)
    attacker.publishes(signed(plants, thief), version=2, family="plants")
    releases = ReleaseRepository(
        pinned_root=world.repository.root, cache=tmp_path, server=world.repository
    )
    snapshot = releases.refresh(START)
    honest = snapshot.target(GOOD.manifest_path)
    assert honest is not None
    role = attacker.signs_role(WRONG.targets(), version=version - 1, signer=thief)
    attacker.serves(f"{version - 1}.{FAMILY}.json", role)
    for path in ("models/plants/1.0.0/manifest.json", WRONG.manifest_path, GOOD.manifest_path):
        with pytest.raises(TrustError, match="a family's list delegates further"):
            snapshot.target(path)
    await repelled(
        world,
        Attack(
            lambda attacker: attacker.assigns(
                listed(GOOD) | listed(release("1.0.0", family="plants"))
            ),
            (REFUSED, "a family's list delegates further"),
            holds=ONLINE,
        ),
    )


async def test_a_wiped_device_takes_nothing_below_the_floors_of_its_claim(
    world: World, tmp_path: Path
) -> None:
    """The thief of the online keys waits for a device without any memory."""
    attacker = Attacker(world, ONLINE)
    old = attacker.newest - 1
    attacker.publishes(world.recorded[0][f"{METADATA}{old}.animals.json"], version=old)
    wiped = ControlDevice(
        root=tmp_path / "wiped",
        repository=world.repository,
        director=world.director,
        floors={FAMILY: 1},
    )
    await wiped.parts.prepare()
    document = world.director.assign_targets(
        DEVICE, 1, listed(OLD), signer=attacker.key("assignment")
    )
    await wiped.receive(document)
    await wiped.settle()
    assert wiped.record().state is UpdateState.FAILED
    told = wiped.events(STATE)[-1]
    assert (told.version, told.state) == ("0.9.0", UpdateState.FAILED)
    assert "has security counter 0, this device accepts 1 and higher" in told.detail
    assert wiped.runtime.loaded() == set()
    await wiped.kill()
    world.call()


async def test_after_a_fast_forward_new_online_keys_free_the_device(world: World) -> None:
    """With stolen online keys every version was raised to the sky, so nothing newer can come."""
    attacker = Attacker(world, frozenset({"snapshot", "timestamp"}))
    world.repository.version = 2**40
    role = world.recorded[-1][f"{METADATA}3.animals.json"]
    attacker.publishes(role, version=3)
    assert await world.device.parts.freshness.check()
    world.repository.version = 3
    await world.wants(NEXT)
    await world.endure(rounds=10)
    assert "must be >=" in world.device.events(EventKind.DELIVERY_REFUSED)[-1].detail
    assert world.device.active() == {FAMILY: GOOD.manifest.version}
    world.repository.rotate("snapshot", "timestamp")
    await world.device.settle()
    assert world.device.active() == {FAMILY: NEXT.manifest.version}


async def test_a_stolen_publisher_key_is_worth_nothing_after_its_rotation(world: World) -> None:
    thief = world.repository.keys["publisher"]
    world.repository.rotate("publisher")
    world.recorded.append(dict(world.repository.files))
    attack = Attack(unsigned_with(thief), (REFUSED, "animals was signed by 0/1 keys"), holds=ONLINE)
    await repelled(world, attack)


async def test_a_new_root_that_the_old_one_did_not_sign_is_refused(world: World) -> None:
    """The thief of every other key makes a root of its own."""

    async def own_root(attacker: Attacker) -> None:
        await attacker.world.wants(NEXT)
        real, attacker.world.repository.keys["root"] = (
            attacker.world.repository.keys["root"],
            CryptoSigner.generate_ed25519(),
        )
        attacker.world.repository.offline_version = 1
        attacker.world.repository.sign_offline()
        attacker.world.repository.offline_version = 1
        attacker.world.repository.keys["root"] = real

    await repelled(world, Attack(own_root, (REFUSED, "root was signed by 0/1 keys")))


def unsigned_with(signer: CryptoSigner) -> Act:
    async def act(attacker: Attacker) -> None:
        _serves(attacker)
        version = attacker.newest + 1
        role = attacker.signs_role(WRONG.targets(), version=version, signer=signer)
        attacker.publishes(role, version=version)
        await attacker.assigns(listed(WRONG))

    return act


def _serves(attacker: Attacker) -> None:
    for path, content in WRONG.targets().items():
        attacker.serves_file(path, content)

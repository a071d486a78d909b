"""Attacks on what the server hands out, by whoever owns it, or the CDN, or the network.

None of these needs a key.
"""

import pytest

from fleet_protocol.messages import EventKind
from tests.attacks.attack import Attack, repelled
from tests.simulators.hostile_fleet import EVIL, NEXT, Attacker, World

REFUSED = EventKind.DELIVERY_REFUSED


async def arbitrary_model(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    evil = (EVIL * 9)[: len(NEXT.model)]
    attacker.serves_file(NEXT.model_path, evil, in_place_of=NEXT.model)


async def arbitrary_manifest(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    evil = EVIL[: len(NEXT.manifest_bytes)]
    attacker.serves_file(NEXT.manifest_path, evil, in_place_of=NEXT.manifest_bytes)


async def endless_model(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.serves_file(NEXT.model_path, NEXT.model + EVIL * 200, in_place_of=NEXT.model)


async def endless_timestamp(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.serves("timestamp.json", EVIL * 2)


async def endless_snapshot(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.serves(f"{attacker.newest}.snapshot.json", b" " * 2_000_001)


async def endless_root(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.serves("2.root.json", b" " * 512_001)


async def page_in_place_of_files(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.world.repository.faults.stated_bytes = 512


async def slow_retrieval(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.world.repository.faults.too_slow = "model.onnx"


async def slow_metadata(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.world.repository.faults.too_slow = "snapshot.json"


async def metadata_that_is_none(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.serves("timestamp.json", b'{"signed": {}, "signatures": []}')


async def deeply_nested_metadata(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    attacker.serves("timestamp.json", b"[" * 16_000)


ATTACKS = {
    "arbitrary model": Attack(
        arbitrary_model, (REFUSED, r"model\.onnx as the server sent it has SHA-256 .*, signed is")
    ),
    "arbitrary manifest": Attack(
        arbitrary_manifest,
        (REFUSED, r"manifest\.json as the server sent it has SHA-256 .*, signed is"),
    ),
    "endless model": Attack(endless_model, (REFUSED, r"is longer than its signed \d+")),
    "endless timestamp": Attack(endless_timestamp, (REFUSED, "exceeding the maximum .* 16384")),
    "endless snapshot": Attack(endless_snapshot, (REFUSED, "exceeding the maximum .* 2000000")),
    "endless root": Attack(endless_root, (REFUSED, "exceeding the maximum .* 512000")),
    "page in place of files": Attack(
        page_in_place_of_files, (REFUSED, r"what answers for .* has 512 bytes; signed are \d+")
    ),
    "slow retrieval": Attack(slow_retrieval, (REFUSED, r"sent 1 bytes in 60 s; less than")),
    "slow metadata": Attack(
        slow_metadata, (REFUSED, r"cannot fetch the release metadata: the server sent 1 bytes")
    ),
    "metadata that is none": Attack(metadata_that_is_none, (REFUSED, "release repository is not")),
    "deeply nested metadata": Attack(deeply_nested_metadata, (REFUSED, "Failed to deserialize")),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(world: World, name: str) -> None:
    await repelled(world, ATTACKS[name])

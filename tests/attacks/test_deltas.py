"""Attacks on deltas, which nobody signs: bombs, oversized and endless ones, foreign content.

The attacker owns whoever makes the deltas. The fleet hears of it, and the device takes the whole
file instead; if that is the attacker's too, nothing is installed.
"""

import hashlib
import lzma
import resource

import pytest

from fleet_protocol.delta import (
    BYTES,
    FILTERS,
    PACKED,
    SEGMENT_BYTES,
    SEGMENT_HEADER,
    STORED,
    WORDS,
    header,
)
from fleet_protocol.messages import EventKind
from tests.attacks.attack import Attack, only_verified_files, repelled
from tests.simulators.device_releases import release
from tests.simulators.hostile_fleet import EVIL, FAMILY, GOOD, Attacker, World

NEXT = release("1.1.0", security_counter=1, model=GOOD.model[::-1] * 4)
START = header(*(hashlib.sha256(one).hexdigest() for one in (GOOD.model, NEXT.model)))
SIZE = len(NEXT.model)
_ALLOWED_KIB = 32 * 1024


def segment(mode: int, length: int, payload: bytes, *, offset: int = 0) -> bytes:
    return SEGMENT_HEADER.pack(mode, length, offset, len(payload)) + payload


def packed(content: bytes) -> bytes:
    return lzma.compress(content, format=lzma.FORMAT_RAW, filters=list(FILTERS))


BOMB = packed(bytes(20_000_000))

DELTAS = {
    "a bomb in a segment": (
        START + segment(PACKED, SEGMENT_BYTES, BOMB[:SEGMENT_BYTES]),
        "does not unpack to the 65536 bytes",
    ),
    "a segment larger than the file": (
        START + segment(PACKED, 2**32 - 1, b"x"),
        "has a segment of 4294967295 bytes in 1, where",
    ),
    "a payload larger than its segment": (
        START + SEGMENT_HEADER.pack(STORED, 10, 0, 2**32 - 1),
        "has a segment of 10 bytes in 4294967295",
    ),
    "more than the signed length": (
        START + segment(STORED, SEGMENT_BYTES, GOOD.model[:1] * SEGMENT_BYTES) * 10,
        "has a segment of 65536 bytes in 65536, where",
    ),
    "more overhead than the file has bytes": (
        START + segment(STORED, SIZE // 20, b"x" * (SIZE // 20)) * 20,
        f"the delta is larger than the {SIZE} bytes of the file itself",
    ),
    "a crumb in every segment": (
        START + segment(STORED, 1, b"x") * SIZE,
        "has a segment of 1 bytes in 1, where",
    ),
    "packing that only adds": (
        START + segment(PACKED, 1, packed(b"x")) * SIZE,
        "has a segment of 1 bytes in 5",
    ),
    "an offset far behind the held file": (
        START + segment(BYTES, SEGMENT_BYTES, packed(EVIL), offset=2**63 - 1),
        "does not unpack",
    ),
    "an offset far before the held file": (
        START + segment(WORDS, 4096, packed(bytes(4096)), offset=-(2**63)),
        "the delta ends",
    ),
    "an unknown mode": (START + segment(200, 10, b"x" * 10), "of the unknown mode 200"),
    "between other files": (
        header("0" * 64, "1" * 64) + segment(STORED, 10, b"x" * 10),
        "is not one between these two files",
    ),
    "wrong content of the right length": (
        START
        + b"".join(
            segment(PACKED, len(part), packed(part))
            for part in (
                (EVIL * 100)[at : min(at + SEGMENT_BYTES, SIZE)]
                for at in range(0, SIZE, SEGMENT_BYTES)
            )
        ),
        "does not give the signed file",
    ),
}


async def delta_and_file(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    delta = START + segment(STORED, 100, EVIL[:100])
    attacker.world.repository.put_delta(GOOD.model, NEXT.model_path, NEXT.model, delta)
    evil = (EVIL * 100)[:SIZE]
    attacker.serves_file(NEXT.model_path, evil, in_place_of=NEXT.model)


async def bomb_and_file(attacker: Attacker) -> None:
    await attacker.world.wants(NEXT)
    delta, _ = DELTAS["a bomb in a segment"]
    attacker.world.repository.put_delta(GOOD.model, NEXT.model_path, NEXT.model, delta)
    evil = (EVIL * 100)[:SIZE]
    attacker.serves_file(NEXT.model_path, evil, in_place_of=NEXT.model)


BOMB_AND_FILE = Attack(
    bomb_and_file, (EventKind.DELIVERY_REFUSED, "does not unpack to the 65536 bytes")
)


@pytest.mark.parametrize("name", DELTAS)
async def test_a_wrong_delta_is_told_and_the_whole_file_taken(world: World, name: str) -> None:
    delta, sentence = DELTAS[name]
    await world.wants(NEXT)
    world.repository.put_delta(GOOD.model, NEXT.model_path, NEXT.model, delta)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await world.endure()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _ALLOWED_KIB
    told = [event.detail for event in world.device.events(EventKind.DELIVERY_REFUSED)]
    assert len(told) == 1, told
    assert sentence in told[0]
    assert world.device.active() == {FAMILY: NEXT.manifest.version}
    only_verified_files(world)


async def test_a_wrong_delta_and_a_wrong_file_install_nothing(world: World) -> None:
    seen = (EventKind.DELIVERY_REFUSED, r"model\.onnx as the server sent it has SHA-256")
    await repelled(world, Attack(delta_and_file, seen))


async def test_a_bomb_and_a_wrong_file_install_nothing(world: World) -> None:
    await repelled(world, BOMB_AND_FILE)

"""One attack: what its attacker holds, what it does, and the event that tells the fleet of it."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fleet_protocol.messages import EventKind
from tests.simulators.control_device import DEVICE
from tests.simulators.hostile_fleet import EVIL, FAMILY, GOOD, LAST, Attacker, World

ONLINE_ROLES = frozenset({"snapshot", "timestamp"})
Act = Callable[[Attacker], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """An entry of a table of attacks.

    Attributes:
        act: the attack; what the device does about it comes after.
        seen: kind of the event that tells of it, and a pattern of its sentence.
        holds: the keys that the attacker has stolen.
    """

    act: Act
    seen: tuple[EventKind, str]
    holds: frozenset[str] = frozenset()


async def repelled(world: World, attack: Attack) -> None:
    """Let an attack happen: it must be told, install nothing, leave nothing, stop nothing."""
    served = world.device.runtime.loaded()
    before = world.device.events()
    await attack.act(Attacker(world, attack.holds))
    await world.endure()
    kind, sentence = attack.seen
    events = [event for event in world.device.events() if event not in before]
    told = [event.detail for event in events if event.kind is kind]
    assert any(re.search(sentence, detail) for detail in told), [
        (event.kind, event.state, event.detail) for event in events
    ]
    assert world.device.active() == {FAMILY: GOOD.manifest.version}
    assert world.device.runtime.serving(FAMILY) == GOOD.manifest.version
    assert world.device.runtime.loaded() == served
    only_verified_files(world)
    await the_next_release_comes(world, stolen=attack.holds)


def only_verified_files(world: World) -> None:
    """Every finished file is what its name says, and nothing of the attacker is there at all."""
    for path in world.device.state.blobs.iterdir():
        content = path.read_bytes()
        assert EVIL[:16] not in content, path
        if path.suffix != ".part":
            assert hashlib.sha256(content).hexdigest() == path.name


async def the_next_release_comes(world: World, *, stolen: frozenset[str]) -> None:
    """The attacker has left, stolen online keys are replaced: the device takes what comes now.

    The new keys matter: a thief of the online keys may have raised versions beyond the fleet's.
    """
    world.repository.files = dict(world.recorded[-1])
    world.repository.faults.too_slow = ""
    world.repository.faults.stated_bytes = None
    world.repository.version += 100
    if stolen & ONLINE_ROLES:
        world.repository.rotate(*ONLINE_ROLES)
    world.publishes(LAST)
    document = world.director.assign(DEVICE, len(world.assignments) + 100, [LAST])
    await world.device.receive(document)
    await world.device.settle()
    assert world.device.active() == {FAMILY: LAST.manifest.version}
    world.call()
    only_verified_files(world)

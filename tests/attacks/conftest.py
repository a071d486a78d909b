"""A fleet under attack, with a device that serves."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.simulators.control_device import ControlDevice
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director
from tests.simulators.hostile_fleet import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A device that has committed to a good release, after an older one with a lower counter."""
    repository = SimulatedRepository(other_families=["plants"])
    director = Director()
    device = ControlDevice(root=tmp_path / "d", repository=repository, director=director)
    await device.parts.prepare()
    world = World(device, repository, director)
    await world.prepare()
    yield world
    assert world.calls, "the application never called"
    await device.kill()

"""A simulated device for the tests of its control side."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.simulators.control_device import ControlDevice
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director


@pytest.fixture
def repository() -> SimulatedRepository:
    """A release repository without releases."""
    return SimulatedRepository()


@pytest.fixture
def director() -> Director:
    """A director."""
    return Director()


@pytest.fixture
async def device(
    tmp_path: Path, repository: SimulatedRepository, director: Director
) -> AsyncIterator[ControlDevice]:
    """A device that is enrolled and has never run anything."""
    device = ControlDevice(root=tmp_path / "d", repository=repository, director=director)
    await device.parts.prepare()
    yield device
    await device.kill()

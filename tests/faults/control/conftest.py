"""A simulated device whose durable writes can be made to be its last."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from edge_agent import store
from tests.simulators.control_device import ControlDevice
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director


@pytest.fixture
async def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ControlDevice]:
    """A device that is enrolled; its crash plan also counts the writes of whole files."""
    device = ControlDevice(
        root=tmp_path / "d", repository=SimulatedRepository(), director=Director()
    )
    for name in ("write_file", "publish_file", "remove_file"):
        monkeypatch.setattr(store, name, _counted(device, getattr(store, name)))
    await device.parts.prepare()
    yield device
    await device.kill()


def _counted(device: ControlDevice, write: Callable[..., None]) -> Callable[..., None]:
    def counted(*arguments: object, **options: object) -> None:
        device.plan.around(partial(write, *arguments, **options))

    return counted

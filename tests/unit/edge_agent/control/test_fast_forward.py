"""Recovery from stolen online keys (TUF specification 5.3.11), on the device's own code."""

from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release


async def order(device: ControlDevice, version: str, number: int) -> None:
    one = release(version)
    device.repository.add(one)
    await device.receive(device.director.assign(DEVICE, number, [one]))


async def waits_because(device: ControlDevice) -> str:
    """Let a device that cannot go on try for a while; return what it waits for."""
    for _ in range(10):
        if not await device.step():
            device.clock.advance(1.0)
    return device.record().detail


async def test_rotated_online_keys_undo_pushed_versions(device: ControlDevice) -> None:
    await order(device, "1.0.0", 1)
    await device.settle()
    device.repository.push_to_the_end()
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    await device.settle()  # refused: nobody published it; the versions are on the device now

    await order(device, "1.1.0", 3)
    assert "2147483647" in await waits_because(device)
    assert device.active() == {"animals": "1.0.0"}

    device.repository.rotate("snapshot", "timestamp")
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}


async def test_what_the_stolen_keys_signed_is_refused_after_the_rotation(
    device: ControlDevice,
) -> None:
    await order(device, "1.0.0", 1)
    await device.settle()
    device.repository.push_to_the_end()
    stolen = device.repository.metadata("timestamp.json")
    device.repository.rotate("snapshot", "timestamp")
    await order(device, "1.1.0", 2)
    await device.settle()
    device.repository.faults.content["timestamp.json"] = stolen
    await order(device, "1.2.0", 3)
    assert "timestamp was signed by 0/1 keys" in await waits_because(device)
    assert device.active() == {"animals": "1.1.0"}

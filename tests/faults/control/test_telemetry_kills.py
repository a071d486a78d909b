"""Telemetry under kills: every count reaches the fleet once, wherever control or runtime dies."""

from functools import partial

import pytest

from edge_agent.control.outbox import Kind
from tests.simulators.control_device import DEVICE, ControlDevice, Crash
from tests.simulators.device_releases import release
from tests.simulators.telemetry_server import TelemetryServer


async def serve(device: ControlDevice) -> None:
    device.repository.add(release("1.0.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.settle()


async def drain(device: ControlDevice, server: TelemetryServer) -> None:
    """Send everything, each message twice, until nothing waits."""
    outbox = device.parts.outbox
    for _ in range(100):
        messages = await device.database.transact(outbox.take)
        for message in messages * 2:
            server.receives(message)
        for stream in server.covered:
            await device.database.transact(partial(outbox.acknowledge, ack=server.ack(stream)))
        if not messages:
            break
    depth = await device.database.transact(outbox.depth)
    assert depth == dict.fromkeys(Kind, 0)


@pytest.mark.parametrize("reboot", [False, True], ids=["runtime lives", "runtime dies too"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 5))
async def test_control_dies_at_a_durable_write_of_a_window(
    device: ControlDevice, at: int, *, after: bool, reboot: bool
) -> None:
    await serve(device)
    server = TelemetryServer()
    device.runtime.answer_calls("animals", good=3)
    device.runtime.boot()
    device.runtime.answer_calls("animals", good=4, bad=1)
    calls = 8
    device.plan.seen, device.plan.at, device.plan.after = 0, at, after
    try:
        for _ in range(2):
            await device.parts.telemetry.close_window()
            device.runtime.answer_calls("animals", good=1)
            calls += 1
    except Crash:
        pass
    device.plan.at = 0
    if reboot:
        device.runtime.boot()
    await device.restarted()
    device.runtime.answer_calls("animals", good=2)
    for _ in range(3):
        await device.parts.telemetry.close_window()
    await drain(device, server)
    succeeded = sum(m.latency_us.count for w in server.windows for m in w.models)
    assert server.requests == calls + 2
    assert succeeded == calls + 2 - 1
    assert len(list(device.state.run.glob("counters-*.bin"))) == 1


async def test_a_full_outbox_under_kills_loses_no_count(device: ControlDevice) -> None:
    await serve(device)
    server = TelemetryServer()
    device.parts.outbox.max_messages = 16
    calls = 0
    for round_number in range(60):
        device.runtime.answer_calls("animals", good=round_number + 1)
        calls += round_number + 1
        device.plan.seen, device.plan.at = 0, 1 if round_number % 3 else 0
        device.plan.after = round_number % 2 == 0
        try:
            await device.parts.telemetry.close_window()
        except Crash:
            device.plan.at = 0
            await device.restarted()
            device.parts.outbox.max_messages = 16
        if round_number % 7 == 0:
            device.runtime.boot()
    device.plan.at = 0
    await device.parts.telemetry.close_window()
    await drain(device, server)
    assert server.requests == calls

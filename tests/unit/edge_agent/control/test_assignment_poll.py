"""Without a broker the assignment comes over HTTPS, once."""

import asyncio
import random

import pytest

from edge_agent.control.assignment_poll import AssignmentPoll
from edge_agent.control.server_client import ServerRefusedError, ServerUnreachableError
from fleet_protocol.assignments import MAX_ASSIGNMENT_BYTES, POLL_ROUTE
from fleet_protocol.messages import EventKind
from tests.simulators.control_device import DEVICE, ControlDevice


async def test_a_polled_assignment_is_accepted_once(device: ControlDevice) -> None:
    files, polls = device.repository.files, device.parts.assignment_poll
    for version in (1, 2):
        files[POLL_ROUTE] = device.director.assign(DEVICE, version, [])
        await polls.poll()
        await device.parts.inbound.deliver()
    before = device.parts.inbound._link.received.count
    await polls.poll()
    assert device.parts.inbound._link.received.count == before, "304: nothing was delivered"
    accepted = device.events(EventKind.ASSIGNMENT_ACCEPTED)
    assert [event.detail.split(":")[0] for event in accepted] == ["assignment 1", "assignment 2"]


async def test_a_polled_document_is_verified_like_any_other(device: ControlDevice) -> None:
    device.repository.files[POLL_ROUTE] = device.director.assign("cam-02", 1, [])
    await device.parts.assignment_poll.poll()
    await device.parts.inbound.deliver()
    assert [event.kind for event in device.events()][-1] is EventKind.ASSIGNMENT_REFUSED


async def test_what_has_no_end_is_left(device: ControlDevice) -> None:
    device.repository.files[POLL_ROUTE] = b"x" * (MAX_ASSIGNMENT_BYTES + 1)
    with pytest.raises(ServerUnreachableError, match="has no end"):
        await device.parts.assignment_poll.poll()
    del device.repository.files[POLL_ROUTE]
    with pytest.raises(ServerRefusedError):
        await device.parts.assignment_poll.poll()


async def test_it_polls_only_while_the_broker_is_away(device: ControlDevice) -> None:
    device.repository.files[POLL_ROUTE] = device.director.assign(DEVICE, 1, [])
    delivered: asyncio.Queue[bytes] = asyncio.Queue()
    poll = AssignmentPoll(
        link=device.link,
        server=device.repository,
        database=device.database,
        deliver=delivered.put_nowait,
        interval_s=0.005,
        randomness=random.Random(1),  # noqa: S311 (a pause is no secret)
    )
    device.link.connect()
    running = asyncio.create_task(poll.run())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await delivered.get()
    device.link.disconnect()
    async with asyncio.timeout(5):
        assert await delivered.get() == device.repository.files[POLL_ROUTE]
    running.cancel()

"""Sending: what goes out when, and again when."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from edge_agent.control.database import Database
from edge_agent.control.outbox import EventDraft, Outbox
from edge_agent.control.sender import Sender
from fleet_protocol.messages import Ack, Event, EventKind, decode, encode
from fleet_protocol.topics import Channel
from tests.simulators.broker_link import SimulatedLink
from tests.simulators.device_clock import ManualClock


class Sending:
    """A sender at work over a simulated link."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "state.db")
        self.outbox = Outbox(max_messages=16)
        self.link = SimulatedLink()
        self.clock = ManualClock()
        self.sender = Sender(
            database=self.database,
            outbox=self.outbox,
            link=self.link,
            clock=self.clock,
            resend_after_s=30.0,
        )

    async def append(self, detail: str) -> None:
        draft = EventDraft(at_ms=1, kind=EventKind.UPDATE_STATE, detail=detail)
        await self.database.transact(partial(self.outbox.append_event, draft=draft))

    async def ack(self, sequence: int) -> None:
        stream = decode(self.link.published[0][1], Event).stream
        await self.sender.acknowledged(encode(Ack(stream=stream, sequence=sequence)))

    def sent(self) -> list[str]:
        return [
            decode(payload, Event).detail
            for channel, payload in self.link.published
            if channel is Channel.EVENT
        ]

    async def waiting(self) -> int:
        return sum((await self.database.transact(self.outbox.depth)).values())


@pytest.fixture
async def sending(tmp_path: Path) -> AsyncIterator[Sending]:
    sending = Sending(tmp_path)
    task = asyncio.create_task(sending.sender.run())
    yield sending
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    sending.database.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (the sender has no event for it)
            await asyncio.sleep(0.005)


async def test_what_waits_goes_out_with_the_connection(sending: Sending) -> None:
    await sending.append("a")
    assert sending.sent() == []
    sending.link.connect()
    await until(lambda: sending.sent() == ["a"])
    await sending.append("b")
    await until(lambda: sending.sent() == ["a", "b"])


async def test_what_is_acknowledged_is_forgotten(sending: Sending) -> None:
    sending.link.connect()
    await sending.append("a")
    await sending.append("b")
    await until(lambda: sending.sent() == ["a", "b"])
    await sending.ack(1)
    assert await sending.waiting() == 1


async def test_what_is_not_acknowledged_goes_out_again_after_a_reconnect(
    sending: Sending,
) -> None:
    sending.link.connect()
    await sending.append("a")
    await until(lambda: sending.sent() == ["a"])
    sending.link.disconnect()
    sending.link.connect()
    await until(lambda: sending.sent() == ["a", "a"])


async def test_what_is_not_acknowledged_goes_out_again_after_a_time(sending: Sending) -> None:
    sending.link.connect()
    await sending.append("a")
    await until(lambda: sending.sent() == ["a"])
    sending.clock.advance(29.0)
    await sending.append("b")
    await until(lambda: sending.sent() == ["a", "b"])
    sending.clock.advance(2.0)
    await sending.append("c")
    await until(lambda: sorted(sending.sent()) == ["a", "a", "b", "c"])


async def test_no_more_than_the_window_is_under_way(sending: Sending) -> None:
    for at in range(10):
        await sending.append(str(at))
    sending.link.connect()
    await until(lambda: len(sending.sent()) == sending.outbox.window)
    await sending.ack(2)
    await until(lambda: len(sending.sent()) == sending.outbox.window + 2)


async def test_a_congested_link_is_tried_again(sending: Sending) -> None:
    sending.link.congested = True
    sending.link.connect()
    await sending.append("a")
    sending.link.congested = False
    await sending.append("b")
    await until(lambda: sorted(sending.sent()) == ["a", "b"])


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b'{"stream": "x", "sequence": -1}'])
async def test_a_malformed_acknowledgement_changes_nothing(
    sending: Sending, payload: bytes
) -> None:
    sending.link.connect()
    await sending.append("a")
    await until(lambda: sending.sent() == ["a"])
    await sending.sender.acknowledged(payload)
    assert await sending.waiting() == 1

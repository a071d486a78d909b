"""A broker that belongs to the attacker, on the wire: the device's own link against it.

TLS does not help here: whoever owns the server has the broker's key.
"""

import asyncio
import contextlib
import random
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.control.mqtt_link import Broker, MqttLink
from fleet_protocol.topics import Channel, Topic
from tests.simulators.fleet_authority import Authority

DEVICE = "cam-01"
CONNACK = b"\x20\x02\x00\x00"
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hostile(folder: Path, then: Conversation) -> AsyncIterator[MqttLink]:
    """Run a broker that lets the device in and then says what it likes; yield the link to it."""
    authority = Authority()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.read(4096)
            writer.write(CONNACK)
            await writer.drain()
            await reader.read(4096)
            await then(reader, writer)
            await reader.read()
        writer.close()

    context = authority.server_context(folder)
    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    link = MqttLink(
        broker=Broker(
            host="localhost",
            port=server.sockets[0].getsockname()[1],
            device_id=DEVICE,
            tls=lambda: ssl.create_default_context(cadata=authority.pem),
        ),
        retry_initial_s=0.05,
        retry_max_s=0.1,
        randomness=random.Random(1),  # noqa: S311 (jitter)
    )
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()


def publish(topic: str, payload: bytes, *, stated: int | None = None) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + payload
    rest, length = len(body) if stated is None else stated, b""
    while True:
        rest, digit = divmod(rest, 128)
        length += bytes((digit | (0x80 if rest else 0),))
        if not rest:
            return b"\x31" + length + body


async def logged(link: MqttLink, caplog: pytest.LogCaptureFixture, event: str) -> None:
    async with asyncio.timeout(15):
        while event not in caplog.text:
            await link.state.changed(link.state.count, timeout_s=0.05)


async def test_a_packet_without_end_is_not_received(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MQTT allows 256 MB for a packet, and paho would collect them."""

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        topic = str(Topic(DEVICE, Channel.ASSIGNMENT))
        writer.write(publish(topic, b"", stated=2**28 - 1))
        for _ in range(200):
            writer.write(bytes(1024 * 1024))
            await writer.drain()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with hostile(tmp_path, endless) as link:
        await logged(link, caplog, "broker_packet_too_large")
        assert link.take_assignment() is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_what_is_sent_on_the_topics_of_others_is_not_taken(tmp_path: Path) -> None:
    """Retained messages of another device, of the uplink, and of no topic of ours."""

    async def spoof(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for topic in (
            "skerry/v1/cam-02/assignment",
            "skerry/v1/cam-01/reported",
            "skerry/v1/cam-01/assignment/x",
            "skerry/v1/../cam-01/assignment",
            "\x00",
            "skerry/v1/cam-01/ack",
        ):
            writer.write(publish(topic, topic.encode()))
        await writer.drain()

    async with hostile(tmp_path, spoof) as link:
        acks: list[bytes] = []
        async with asyncio.timeout(15):
            while not acks:
                seen = link.received.count
                if (ack := link.take_ack()) is not None:
                    acks.append(ack)
                else:
                    await link.received.changed(seen, timeout_s=1.0)
        assert acks == [b"skerry/v1/cam-01/ack"]
        assert link.take_assignment() is None


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00" * 100,
        b"\xff" * 100,
        b"\x31\xff\xff\xff\xff\xff",
        b"\x31\x00",
        b"\x90\x03\x00\x01\x80",
    ],
)
async def test_rubbish_costs_a_connection_and_no_more(
    tmp_path: Path, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    connections = 0

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            writer.write(rubbish)
            await writer.drain()
            writer.close()
        else:
            writer.write(publish(str(Topic(DEVICE, Channel.ASSIGNMENT)), b"at last"))

    async with hostile(tmp_path, talk) as link:
        async with asyncio.timeout(15):
            while (document := link.take_assignment()) is None:
                await link.received.changed(link.received.count, timeout_s=0.1)
        assert document == b"at last"
    assert "Traceback" not in caplog.text

"""The embedded broker from inside: what connections leave behind, what slow ones may hold up."""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet_protocol.topics import Channel, Topic, all_devices
from fleet_server import listening
from fleet_server.broker import tls
from fleet_server.broker.connection import MAX_OUTGOING_DEVICE
from fleet_server.broker.embedded import EmbeddedBroker
from fleet_server.broker.streams import encode_packet
from fleet_server.devices.certificates import DeviceCa, read_request
from tests.integration.server.running_server import free_port
from tests.unit.fleet_server.authority import DeviceKey, Fleet

DEVICES = ("one", "two", "three")


class Everyone:
    """A registry without refusals."""

    async def refusal(self, device_id: str, public_key_sha256: str) -> str | None:  # noqa: ARG002 (the signature of the real one)
        return None

    async def refusals(self, keys: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG002 (the signature of the real one)
        return {}


class Peer:
    """A client that speaks MQTT by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, first: int, body: bytes = b"") -> None:
        self.writer.write(encode_packet((first, body)))
        await self.writer.drain()

    async def read(self) -> tuple[int, bytes]:
        async with asyncio.timeout(10):
            first = (await self.reader.readexactly(1))[0]
            length, shift = 0, 0
            while True:
                digit = (await self.reader.readexactly(1))[0]
                length |= (digit & 0x7F) << shift
                shift += 7
                if not digit & 0x80:
                    return first, await self.reader.readexactly(length)

    async def hello(self, client_id: str, will: tuple[str, bytes] | None = None) -> None:
        flags, rest = 0x02, b""
        if will is not None:
            flags, rest = 0x2E, _text(will[0]) + _text_bytes(will[1])
        head = b"\x00\x04MQTT\x04" + bytes((flags,)) + b"\x00\x3c"
        await self.send(0x10, head + _text(client_id) + rest)
        assert await self.read() == (0x20, b"\x00\x00")

    async def subscribe(self, topic: str) -> None:
        await self.send(0x82, b"\x00\x01" + _text(topic) + b"\x01")
        assert await self.read() == (0x90, b"\x00\x01\x01")

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        await self.send(0x32 | retain, _text(topic) + b"\x00\x07" + payload)

    def cut(self) -> None:
        self.writer.transport.abort()


def _text(value: str) -> bytes:
    return _text_bytes(value.encode())


def _text_bytes(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


class Harness:
    """A broker and everything to connect to it."""

    def __init__(self, fleet: Fleet) -> None:
        self.port = free_port()
        self._online = fleet.data.online
        self._folder = fleet.authority.root
        self._ca = DeviceCa.load(
            key_file=self._online / "device-ca.pem", certificate_file=self._online / "device-ca.crt"
        )
        self.broker = EmbeddedBroker(
            listener=listening.open_port(host="127.0.0.1", port=self.port, key="mqtt_port"),
            tls=tls.server_context(
                certificate=self._online / "tls.crt",
                key=self._online / "tls.pem",
                client_cas=(self._online / "device-ca.crt").read_text(),
            ),
            registry=Everyone(),
            max_connections=20,
        )

    def files(self, name: str) -> tuple[Path, Path]:
        if name == "_ingest":
            return self._online / "ingest.crt", self._online / "ingest.pem"
        certificate, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.pem"
        if not key_file.exists():
            key = DeviceKey.new(name)
            issued = self._ca.issue(
                device_id=name, key=read_request(key.csr()), now=datetime.now(UTC)
            )
            certificate.write_text(issued.pem)
            key_file.write_bytes(key.pem)
        return certificate, key_file

    async def peer(self, name: str, will: tuple[str, bytes] | None = None) -> Peer:
        context = ssl.create_default_context(cafile=self._online / "fleet-ca.crt")
        context.load_cert_chain(*self.files(name))
        peer = Peer(*await asyncio.open_connection("localhost", self.port, ssl=context))
        await peer.hello(name, will)
        return peer

    async def quiet(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(10):
            while self.broker.sessions or self.broker._open:  # noqa: ASYNC110 (polls the broker)
                await asyncio.sleep(0.01)


@pytest.fixture
async def harness(fleet: Fleet) -> AsyncIterator[Harness]:
    made = Harness(fleet)
    await made.broker.start()
    yield made
    await made.broker.shutdown()


async def test_connections_leave_nothing_behind(harness: Harness) -> None:
    tasks = len(asyncio.all_tasks())
    for round_number in range(6):
        peers = [await harness.peer(name) for name in DEVICES]
        for name, peer in zip(DEVICES, peers, strict=True):
            await peer.subscribe(str(Topic(name, Channel.ACK)))
            await peer.publish(str(Topic(name, Channel.REPORTED)), b"{}", retain=True)
            assert (await peer.read())[0] == 0x40
        for peer in peers:
            if round_number % 2:
                await peer.send(0xE0)
            peer.cut()
        await harness.quiet()
    assert harness.broker.subscriptions == {}
    assert len(harness.broker.retained_messages) == len(DEVICES)
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 (polls the loop)
            await asyncio.sleep(0.01)


async def test_a_message_sent_just_before_leaving_arrives(harness: Harness) -> None:
    ingest = await harness.peer("_ingest")
    await ingest.subscribe(all_devices(Channel.EVENT))
    for number in range(50):
        peer = await harness.peer("one")
        payload = str(number).encode()
        packet = _text(str(Topic("one", Channel.EVENT))) + b"\x00\x07" + payload
        peer.writer.write(encode_packet((0x32, packet)) + b"\xe0\x00")
        first, body = await ingest.read()
        assert first & 0xF0 == 0x30
        assert body.endswith(payload)
        await ingest.send(0x40, body[-len(payload) - 2 : -len(payload)])
        peer.cut()


async def test_the_will_of_the_older_connection_comes_before_the_newer_one(
    harness: Harness,
) -> None:
    topic = str(Topic("one", Channel.PRESENCE))
    for _ in range(10):
        await harness.peer("one", will=(topic, b"gone"))
        newer = await harness.peer("one", will=(topic, b"gone"))
        await newer.publish(topic, b"here", retain=True)
        assert (await newer.read())[0] == 0x40
        async with asyncio.timeout(10):
            while bytes(harness.broker.retained_messages[topic].data) != b"here":  # noqa: ASYNC110 (it runs in another thread)
                await asyncio.sleep(0.01)
        await newer.send(0xE0)
        await harness.quiet()


async def test_a_device_that_acknowledges_nothing_is_cut(harness: Harness) -> None:
    slow = await harness.peer("one")
    await slow.subscribe(str(Topic("one", Channel.ACK)))
    fine = await harness.peer("two")
    await fine.subscribe(str(Topic("two", Channel.ACK)))
    ingest = await harness.peer("_ingest")
    for _ in range(MAX_OUTGOING_DEVICE + 1):
        await ingest.publish(str(Topic("one", Channel.ACK)), b"{}")
    await ingest.publish(str(Topic("two", Channel.ACK)), b"for two")
    assert (await fine.read())[1].endswith(b"for two")
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(10):
            while await slow.reader.read(65536):
                pass
    async with asyncio.timeout(10):
        while "one" in harness.broker.sessions:  # noqa: ASYNC110 (polls the broker)
            await asyncio.sleep(0.01)


async def test_a_flood_is_held_back_while_ingest_is_slow(harness: Harness) -> None:
    ingest = await harness.peer("_ingest")
    await ingest.subscribe(all_devices(Channel.TELEMETRY))
    flood = await harness.peer("one")
    topic, payload = str(Topic("one", Channel.TELEMETRY)), bytes(4096)

    async def send_for_ever() -> None:
        while True:
            await flood.publish(topic, payload)

    sending = asyncio.create_task(send_for_ever())
    reading = asyncio.create_task(flood.reader.read(-1))
    async with asyncio.timeout(60):
        before = -1
        while (  # noqa: ASYNC110 (polls the broker)
            before != (before := harness.broker._broadcast_queue.qsize()) or before < 500
        ):
            await asyncio.sleep(0.5)
    assert harness.broker._broadcast_queue.qsize() <= 1100
    for task in (sending, reading):
        task.cancel()
    await asyncio.gather(sending, reading, return_exceptions=True)
    flood.cut()
    ingest.cut()
    await harness.quiet()


async def test_connections_are_bounded(harness: Harness) -> None:
    peers = [await harness.peer(f"dev-{number}") for number in range(20)]
    with pytest.raises((OSError, EOFError, TimeoutError)):
        await harness.peer("one-too-many")
    peers.pop().cut()
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError, EOFError):
                (await harness.peer("fits-now")).cut()
                break
    for peer in peers:
        peer.cut()

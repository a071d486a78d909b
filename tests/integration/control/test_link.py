"""The MQTT link against a real broker."""

import asyncio
import queue
import random
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.control.link import LinkDownError
from edge_agent.control.mqtt_link import Broker, MqttLink
from edge_agent.identity import Identity
from fleet_protocol.messages import Presence, decode
from fleet_protocol.topics import Channel, Topic
from tests.integration.control.conftest import Mosquitto
from tests.simulators.fleet_authority import Authority

DEVICE = "cam-01"


def link_of(who: Identity) -> MqttLink:
    return MqttLink(
        broker=Broker(
            host=who.enrollment.mqtt_host,
            port=who.enrollment.mqtt_port,
            device_id=who.device_id,
            tls=partial(who.tls_context, client_certificate=True),
        ),
        retry_initial_s=0.05,
        retry_max_s=0.2,
        randomness=random.Random(1),  # noqa: S311 (jitter)
    )


class Observer:
    """The fleet's side of the broker: sees what the device publishes, publishes to it."""

    def __init__(self, who: Identity) -> None:
        self.seen: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="observer")
        self._client.tls_set_context(who.tls_context(client_certificate=True))
        self._client.on_message = lambda _c, _u, m: self.seen.put((m.topic, bytes(m.payload)))
        self._client.connect("localhost", who.enrollment.mqtt_port)
        self._client.loop_start()
        self._client.subscribe("skerry/v1/#", qos=1)

    def publish(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        info = self._client.publish(str(Topic(DEVICE, channel)), payload, qos=1, retain=retain)
        info.wait_for_publish(5)

    async def next(self, channel: Channel) -> bytes:
        while True:
            topic, payload = await asyncio.to_thread(self.seen.get, True, 10)  # noqa: FBT003 (the signature of others)
            if topic == str(Topic(DEVICE, channel)):
                return payload

    async def presence(self) -> bool:
        return decode(await self.next(Channel.PRESENCE), Presence).online

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def who(broker: Mosquitto, tmp_path: Path) -> Identity:
    return broker.identity(DEVICE, tmp_path / "device")


@pytest.fixture
def observer(broker: Mosquitto, tmp_path: Path) -> Iterator[Observer]:
    observer = Observer(broker.identity("observer", tmp_path / "observer"))
    yield observer
    observer.close()


class Running:
    """A link at work."""

    def __init__(self, link: MqttLink) -> None:
        self.link = link
        self.task = asyncio.create_task(link.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 (the link has no event for it)
                await asyncio.sleep(0.02)


@pytest.fixture
async def running(who: Identity) -> AsyncIterator[Running]:
    running = Running(link_of(who))
    yield running
    await running.stop()


async def test_presence_follows_the_connection(running: Running, observer: Observer) -> None:
    assert await observer.presence()
    await running.stop()
    assert not await observer.presence()


async def test_a_device_that_vanishes_is_reported_by_the_broker(
    running: Running, observer: Observer
) -> None:
    assert await observer.presence()
    client = running.link._client
    assert client is not None
    connection = client.socket()
    assert connection is not None
    connection.close()
    assert not await observer.presence()
    assert await observer.presence()  # and it comes back


async def test_what_is_published_arrives(running: Running, observer: Observer) -> None:
    await running.until(lambda: running.link.connected)
    running.link.publish(Channel.EVENT, b"something happened")
    assert await observer.next(Channel.EVENT) == b"something happened"


async def test_a_retained_assignment_arrives_with_the_connection(
    who: Identity, observer: Observer
) -> None:
    observer.publish(Channel.ASSIGNMENT, b"do this", retain=True)
    running = Running(link_of(who))
    try:
        await running.until(lambda: running.link.received.count > 0)
        assert running.link.take_assignment() == b"do this"
        assert running.link.take_assignment() is None
    finally:
        await running.stop()


async def test_only_the_newest_assignment_is_kept_and_acks_in_order(
    running: Running, observer: Observer
) -> None:
    await running.until(lambda: running.link.connected)
    for payload in (b"1", b"2"):
        observer.publish(Channel.ACK, payload)
        observer.publish(Channel.ASSIGNMENT, payload * 300_000)
    await running.until(lambda: running.link.received.count >= 4)
    assert running.link.take_assignment() == b"2" * 300_000
    assert [running.link.take_ack() for _ in range(3)] == [b"1", b"2", None]


async def test_after_the_broker_died_the_link_comes_back(
    running: Running, broker: Mosquitto
) -> None:
    await running.until(lambda: running.link.connected)
    first = running.link.connection
    broker.kill()
    await running.until(lambda: not running.link.connected)
    with pytest.raises(LinkDownError):
        running.link.publish(Channel.EVENT, b"x")
    broker.start()
    await running.until(lambda: running.link.connected)
    assert running.link.connection > first


async def test_a_broker_of_another_fleet_is_not_spoken_to(
    broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.kill()
    trusted = broker.fleet
    broker.fleet = Authority("another")
    broker.start()
    broker.fleet = trusted
    running = Running(link_of(broker.identity(DEVICE, tmp_path / "device")))
    try:
        await running.until(lambda: "broker_unreachable" in caplog.text)
        assert not running.link.connected
    finally:
        await running.stop()


async def test_a_device_that_the_broker_does_not_know_keeps_trying(
    broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = broker.devices
    broker.devices = Authority("another")
    running = Running(link_of(broker.identity(DEVICE, tmp_path / "device")))
    broker.devices = known
    try:
        await running.until(lambda: caplog.text.count("broker_unreachable") >= 2)
        assert not running.link.connected
    finally:
        await running.stop()

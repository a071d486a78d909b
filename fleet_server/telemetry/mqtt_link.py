"""The server's own connection to the broker: hears all devices, speaks to each of them.

gmqtt is touched here and nowhere else. Each connection is a new client: its own reconnecting would
hide from us when to subscribe and to publish the assignments anew.
"""

# mypy: disallow-untyped-calls=False
# (gmqtt ships no types)

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import gmqtt
from gmqtt.mqtt.constants import MQTTv311
from gmqtt.storage import PersistentStorage

from fleet_protocol import topics
from fleet_protocol.messages import MAX_MESSAGE_BYTES, Ack, encode
from fleet_protocol.topics import Channel, Topic
from fleet_server.devices.certificates import INGEST_NAME
from fleet_server.errors import SetupError, UnavailableError

logger = logging.getLogger(__name__)

Receive = Callable[[str, bytes, bool], None]
"""Takes topic, payload and whether the broker had retained it; must not block."""

_CONNECT_TIMEOUT_S = 10.0
_KEEP_ALIVE_S = 20
_AT_ONCE = 100
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class _Client(gmqtt.Client):
    async def reconnect(self, delay: bool = False) -> None:  # noqa: FBT001, FBT002 (gmqtt's signature)
        """Do not: `MqttLink` makes a new client instead."""


def tls_context(*, certificate: Path, key: Path, ca: Path, check_name: bool) -> ssl.SSLContext:
    """Return the client side of mutual TLS.

    Args:
        certificate: of the ingest service.
        key: of the certificate.
        ca: the fleet CA, which the broker's certificate has to come from.
        check_name: whether the broker's certificate has to name the host that is called. A
            broker on this machine is called by a loopback address, which it need not name.

    Raises:
        SetupError: a file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = check_name
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"cannot use the ingest certificate {certificate}, its key {key} or {ca}: {error}"
        ) from error
    return context


class MqttLink:
    """Keeps one connection up and tells what arrives on it."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        on_message: Receive,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._on_message = on_message
        self._client: _Client | None = None
        self._unacknowledged = PersistentStorage()

    @property
    def connected(self) -> bool:
        """Whether messages come and go now."""
        return self._client is not None and bool(self._client.is_connected)

    def publish_assignment(self, device_id: str, document: bytes) -> None:
        """Publish an assignment, retained. While the link is down, the next connection does it."""
        if len(document) > MAX_MESSAGE_BYTES:
            logger.error("assignment_too_large", extra={"device": device_id})
            return
        self._publish(Topic(device_id, Channel.ASSIGNMENT), document, retain=True)

    def publish_commands(self, device_id: str, mailbox: bytes) -> None:
        """Publish a mailbox, retained. While the link is down, the next connection does it."""
        self._publish(Topic(device_id, Channel.COMMANDS), mailbox, retain=True)

    def acknowledge(self, device_id: str, stream: str, sequence: int) -> None:
        """Tell a device what is committed; an acknowledgement that is lost is made again later."""
        ack = Ack(stream=stream, sequence=sequence)
        self._publish(Topic(device_id, Channel.ACK), encode(ack), retain=False)

    async def publish_assignments(self, documents: AsyncIterator[tuple[str, bytes]]) -> None:
        """Publish many assignments, as fast as the broker takes them.

        Raises:
            TimeoutError: the broker takes none.
        """
        count = await self._paced(documents, self.publish_assignment)
        logger.info("assignments_published", extra={"count": count})

    async def publish_mailboxes(self, mailboxes: AsyncIterator[tuple[str, bytes]]) -> None:
        """Publish many mailboxes, as fast as the broker takes them.

        Raises:
            TimeoutError: the broker takes none.
        """
        await self._paced(mailboxes, self.publish_commands)

    async def _paced(
        self, many: AsyncIterator[tuple[str, bytes]], publish: Callable[[str, bytes], None]
    ) -> int:
        count = 0
        async for device_id, content in many:
            publish(device_id, content)
            count += 1
            if count % _AT_ONCE == 0:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await self._unacknowledged.wait_empty()
        return count

    async def run(self, on_connected: Callable[[], Awaitable[None]]) -> None:
        """Stay connected until cancelled.

        Args:
            on_connected: called on each new connection; the broker may have forgotten everything.
        """
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await self._connection(on_connected)
                pause = _FIRST_PAUSE_S
            except (OSError, TimeoutError, UnavailableError, gmqtt.MQTTConnectError) as error:
                logger.warning("broker_unreachable", extra={"reason": str(error)})
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _connection(self, on_connected: Callable[[], Awaitable[None]]) -> None:
        lost = asyncio.Event()
        self._unacknowledged.clear()
        client = _Client(INGEST_NAME, clean_session=True, persistent_storage=self._unacknowledged)
        client.on_message = self._received
        client.on_disconnect = lambda *_arguments, **_options: lost.set()
        host, port = self._address
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await client.connect(
                    host, port, ssl=self._tls, keepalive=_KEEP_ALIVE_S, version=MQTTv311
                )
            for channel in sorted(topics.UPLINK):
                client.subscribe(topics.all_devices(channel), qos=topics.QOS)
            self._client = client
            logger.info("broker_connected")
            await on_connected()
            await lost.wait()
            logger.warning("broker_connection_lost")
        finally:
            self._client = None
            await _close(client)

    def _received(
        self,
        _client: object,
        topic: str,
        payload: bytes,
        _qos: int,
        properties: dict[str, object],
    ) -> int:
        self._on_message(topic, bytes(payload), bool(properties.get("retain")))
        return 0

    def _publish(self, topic: Topic, payload: bytes, *, retain: bool) -> None:
        client = self._client
        if client is None or not client.is_connected:
            return
        try:
            client.publish(str(topic), payload, qos=topics.QOS, retain=retain)
        except OverflowError:
            logger.warning("downlink_full", extra={"topic": str(topic)})


async def _close(client: _Client) -> None:
    try:
        async with asyncio.timeout(2.0):
            await client.disconnect()
    except (OSError, TimeoutError, AttributeError) as error:
        logger.debug("broker_connection_not_closed", extra={"reason": str(error)})

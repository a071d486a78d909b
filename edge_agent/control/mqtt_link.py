"""The MQTT link to the fleet: one connection at a time, made again whenever it is lost.

paho's thread only moves bytes: each callback hands over to the event loop. A new connection is a
new client object, so nothing of an old one (its queue, its retries) lives on; what must not be lost
is the outbox's business.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.control.backoff import Backoff
from edge_agent.control.link import LinkDownError, Mailbox
from edge_agent.control.pulse import Pulse
from edge_agent.errors import AgentError
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import MAX_MESSAGE_BYTES, Presence, encode
from fleet_protocol.topics import Channel, Topic

logger = logging.getLogger(__name__)

_KEEPALIVE_S = 30
_CONNECT_TIMEOUT_S = 15.0
_GOODBYE_TIMEOUT_S = 2.0
_STABLE_AFTER_S = 30.0
_MAX_PACKET_BYTES = 2 * MAX_MESSAGE_BYTES
"""What is a little too large still arrives, and is refused with an event; more is not received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker is and who we are to it."""

    host: str
    port: int
    device_id: str
    tls: Callable[[], ssl.SSLContext]
    """Makes a context with the fleet's CA and the device's certificate."""


class MqttLink:
    """The real link: MQTT 3.1.1 over TLS with the device's certificate."""

    def __init__(
        self,
        *,
        broker: Broker,
        retry_initial_s: float,
        retry_max_s: float,
        randomness: random.Random,
    ) -> None:
        self.state = Pulse()
        self._broker = broker
        self._mailbox = Mailbox()
        self.received = self._mailbox.received
        self._backoff = Backoff(initial_s=retry_initial_s, max_s=retry_max_s, randomness=randomness)
        self._client: mqtt.Client | None = None
        self._connection = 0
        self._renewed = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether messages can be published now."""
        return self._client is not None

    @property
    def connection(self) -> int:
        """Number of the connection, higher for each new one."""
        return self._connection

    def take_assignment(self) -> bytes | None:
        """Return the newest assignment that arrived since the last call, or None."""
        return self._mailbox.take_assignment()

    def take_ack(self) -> bytes | None:
        """Return the next acknowledgement that arrived, or None."""
        return self._mailbox.take_ack()

    def take_commands(self) -> bytes | None:
        """Return the newest list of open commands that arrived since the last call, or None."""
        return self._mailbox.take_commands()

    def publish(self, channel: Channel, payload: bytes) -> None:
        """Hand a message to the connection.

        Raises:
            LinkDownError: there is none, or it does not take more now.
        """
        if self._client is None:
            raise LinkDownError("there is no connection to the broker")
        self._publish(self._client, channel, payload)

    def _publish(
        self, client: mqtt.Client, channel: Channel, payload: bytes
    ) -> mqtt.MQTTMessageInfo:
        topic = str(Topic(self._broker.device_id, channel))
        try:
            info = client.publish(topic, payload, qos=topics.QOS, retain=channel in topics.RETAINED)
        except (ValueError, RuntimeError, OSError) as error:
            raise LinkDownError(f"cannot publish on {topic}: {error}") from error
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDownError(f"cannot publish on {topic}: {mqtt.error_string(info.rc)}")
        return info

    def renew(self) -> None:
        """End the present connection, so that the next one shows the newest certificate."""
        self._renewed.set()

    async def run(self) -> None:
        """Keep a connection until cancelled; then say goodbye."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                await self._one_connection()
            except (OSError, ValueError, AgentError) as error:
                logger.warning(
                    "broker_unreachable",
                    extra={
                        "host": self._broker.host,
                        "port": self._broker.port,
                        "reason": str(error),
                    },
                )
            if loop.time() - began_s > _STABLE_AFTER_S:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    async def _one_connection(self) -> None:
        client = self._new_client()
        self._renewed.clear()
        session = _Session(asyncio.get_running_loop(), self._mailbox, self._broker.device_id)
        session.attach(client)
        started = False
        try:
            client.tls_set_context(await asyncio.to_thread(self._broker.tls))
            await asyncio.to_thread(
                client.connect, self._broker.host, self._broker.port, _KEEPALIVE_S
            )
            started = client.loop_start() == MQTTErrorCode.MQTT_ERR_SUCCESS
            await self._accepted(session)
            self._greet(client)
            self._client = client
            self._connection += 1
            self.state.bump()
            logger.info("broker_connected", extra={"host": self._broker.host})
            reason = await self._until_over(session)
            logger.info("broker_connection_lost", extra={"reason": reason})
        finally:
            was_connected, self._client = self._client is client, None
            if was_connected:
                self.state.bump()
            if started:
                await self._leave(client, session, goodbye=was_connected)

    async def _until_over(self, session: "_Session") -> str:
        renewal = asyncio.create_task(self._renewed.wait())
        try:
            # which leaves the session's future alone when cancelled
            ends: set[asyncio.Future[str] | asyncio.Task[bool]] = {session.lost, renewal}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            renewal.cancel()
        return session.lost.result() if session.lost.done() else "the certificate was renewed"

    async def _accepted(self, session: "_Session") -> None:
        """Wait for the broker's answer.

        Raises:
            LinkDownError: it refused, or did not answer in time.
        """
        answers: set[asyncio.Future[str | None] | asyncio.Future[str]] = {
            session.accepted,
            session.lost,
        }
        await asyncio.wait(answers, timeout=_CONNECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if session.lost.done():
            raise LinkDownError(f"the broker closed the connection ({session.lost.result()})")
        if not session.accepted.done():
            raise LinkDownError("the broker did not answer in time")
        refusal = session.accepted.result()
        if refusal is not None:
            raise LinkDownError(f"the broker refused the device: {refusal}")

    def _new_client(self) -> mqtt.Client:
        client = _BoundedClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._broker.device_id,
            clean_session=True,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_queued_messages_set(256)
        client.will_set(
            str(Topic(self._broker.device_id, Channel.PRESENCE)),
            encode(Presence(online=False)),
            qos=topics.QOS,
            retain=True,
        )
        return client

    def _greet(self, client: mqtt.Client) -> None:
        subscriptions = [
            (str(Topic(self._broker.device_id, channel)), topics.QOS)
            for channel in sorted(topics.DOWNLINK)
        ]
        result, _ = client.subscribe(subscriptions)
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDownError(f"cannot subscribe: {mqtt.error_string(result)}")
        self._publish(client, Channel.PRESENCE, encode(Presence(online=True)))

    async def _leave(self, client: mqtt.Client, session: "_Session", *, goodbye: bool) -> None:
        """End the client's thread; tell the broker first, if it still listens."""
        if goodbye and not session.lost.done():
            with contextlib.suppress(LinkDownError):
                info = self._publish(client, Channel.PRESENCE, encode(Presence(online=False)))
                deadline = asyncio.get_running_loop().time() + _GOODBYE_TIMEOUT_S
                while not (info.is_published() or session.lost.done()):
                    if asyncio.get_running_loop().time() > deadline:
                        break
                    await asyncio.sleep(0.01)
        client.disconnect()
        if not session.lost.done():
            await asyncio.wait({session.lost}, timeout=_GOODBYE_TIMEOUT_S)
        connection = client.socket()
        if connection is not None and isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _BoundedClient(mqtt.Client):
    """paho's client, which by itself buffers packets of up to 256 MB from a broker."""

    def _sock_recv(self, bufsize: int) -> bytes:
        """Receive what is left of a packet at most; the first call has the length that it states.

        Raises:
            ConnectionError: the packet is too large; paho takes it for a lost connection.
        """
        if bufsize > _MAX_PACKET_BYTES:
            logger.warning("broker_packet_too_large", extra={"size_bytes": bufsize})
            raise ConnectionError(f"the broker sends a packet of {bufsize} bytes")
        return super()._sock_recv(bufsize)


class _Session:
    """One connection's callbacks, handed from paho's thread to futures on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mailbox: Mailbox, device_id: str) -> None:
        self._loop = loop
        self._mailbox = mailbox
        self._device_id = device_id
        self.accepted: asyncio.Future[str | None] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()

    def attach(self, client: mqtt.Client) -> None:
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message

    def _on_connect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        self._hand_over(_settle, self.accepted, str(reason) if reason.is_failure else None)

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        self._hand_over(_settle, self.lost, str(reason))

    def _on_message(
        self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage
    ) -> None:
        try:
            topic = Topic.parse(message.topic)
        except (ProtocolError, UnicodeDecodeError):
            return
        if topic.device_id == self._device_id:
            self._hand_over(self._mailbox.put, topic.channel, bytes(message.payload))

    def _hand_over(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(function, *arguments)


def _settle(future: "asyncio.Future[object]", value: object) -> None:
    if not future.done():
        future.set_result(value)

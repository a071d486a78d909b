"""The embedded broker: amqtt with what it leaves open closed. The only module that subclasses it.

amqtt 0.12 brings the protocol's flows; read with an attacker's eyes it lacks these, which are put
right here, in `admission` or in `connection`:

- it reads packets of any length, and asks for client certificates without requiring them;
- it replaces sessions by client id before it authenticates, and never checks a will;
- to a client that connects it sends every retained message that matches anybody's subscription;
- its loop over subscriptions breaks, and drops the message, when one is added meanwhile;
- a dead connection is never noticed (its read timeout does nothing), a take-over leaves the old
  connection running, and the task that tidies sessions may tidy a new one;
- what waits for slow clients, and what they send meanwhile, is unbounded;
- messages in its queue are lost when their sender disconnects.

One machine and the demo are what it is for; a fleet beyond that has a broker of its own.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Iterator

from amqtt.broker import Broker, Server
from amqtt.contexts import Action, ListenerConfig
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import ApplicationMessage, OutgoingApplicationMessage, Session

from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import Topic
from fleet_server.broker import access, admission
from fleet_server.broker.admission import AdmissionRefusedError, Registry
from fleet_server.broker.connection import Connection
from fleet_server.errors import FleetError

logger = logging.getLogger(__name__)

_LISTENER = "default"
_HANDSHAKE_TIMEOUT_S = 10.0
_TAKEOVER_TIMEOUT_S = 10.0
_MAX_QUEUED = 1000
"""Published messages that wait to be distributed; above it, publishers wait."""

_MAX_QUEUED_PER_CLIENT = 64
_CONGESTION_PAUSE_S = 0.02


class EmbeddedBroker(Broker):
    """Serves one listening socket."""

    def __init__(
        self,
        *,
        listener: socket.socket,
        tls: ssl.SSLContext,
        registry: Registry,
        max_connections: int,
    ) -> None:
        super().__init__({"listeners": {_LISTENER: {"type": "tcp"}}, "plugins": {}})
        self._listener = listener
        self._tls = tls
        self._registry = registry
        self._max_connections = max_connections
        self._open = 0
        self._connections: dict[str, Connection] = {}
        self._deliveries: set[asyncio.Task[OutgoingApplicationMessage]] = set()

    @property
    def connections(self) -> int:
        """How many devices are connected."""
        return len(self._connections)

    @property
    def serving(self) -> bool:
        """Whether connections are accepted now."""
        return bool(self.transitions.state == "started")

    async def disconnect(self, device_id: str) -> None:
        """Cut a device's connection, if it has one."""
        connection = self._connections.get(device_id)
        if connection is not None:
            connection.abort()

    def connected_keys(self) -> dict[str, str]:
        """Return the key's fingerprint that each connected device presented."""
        return {
            connection.identity.device_id: connection.public_key_sha256
            for connection in self._connections.values()
            if connection.identity.device_id is not None
        }

    async def shutdown(self) -> None:
        """Accept nothing more, end all connections, stop."""
        for server in self._servers.values():
            if server.instance is not None:
                server.instance.close()
        remaining = list(self._connections.values())
        for connection in remaining:
            connection.abort()
        for connection in remaining:
            await _wait_until_done(connection)
        for task in self._deliveries:
            task.cancel()
        await super().shutdown()

    async def _start_listeners(self) -> None:
        instance = await asyncio.start_server(
            self._accept,
            sock=self._listener,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
        )
        self._servers[_LISTENER] = Server(_LISTENER, instance)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection from handshake to end; nothing that a client does gets out of it."""
        self._open += 1
        try:
            if self._open > self._max_connections:
                logger.warning("mqtt_connections_exhausted", extra={"limit": self._max_connections})
                return
            admitted = await admission.admit(reader, writer, self._registry)
            connection = Connection(
                admitted=admitted, reader=reader, writer=writer, wait_for_room=self._wait_for_room
            )
            await self._take_over(connection)
            await self._serve(connection)
        except AdmissionRefusedError as error:
            logger.warning(
                "mqtt_refused",
                extra={
                    "client": str(error.claimed or "unknown"),
                    "peer": str(writer.get_extra_info("peername")),
                    "reason": str(error),
                },
            )
            if error.code is not None:
                writer.write(bytes((0x20, 0x02, 0x00, error.code)))
        except FleetError as error:
            logger.warning("mqtt_not_admitted", extra={"reason": str(error)})
        except (EOFError, OSError, TimeoutError):
            pass  # it went before it was admitted
        except Exception:
            logger.exception("mqtt_connection_failed")
        finally:
            self._open -= 1
            writer.close()

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._client_connected(_LISTENER, connection.reader, connection.writer)
        finally:
            connection.abort()
            await self._cleanup_session(connection.client_id)
            del self._connections[connection.client_id]
            connection.done.set()

    async def _take_over(self, connection: Connection) -> None:
        """End the client's older connection, wholly, before the new one begins."""
        while (older := self._connections.get(connection.client_id)) is not None:
            older.abort()
            if not await _wait_until_done(older):
                raise AdmissionRefusedError(
                    "its older connection does not end",
                    code=admission.UNAVAILABLE,
                    claimed=connection.identity,
                )
        self._connections[connection.client_id] = connection

    async def _wait_for_room(self, client_id: str) -> None:
        """Let a publisher wait while too much is queued: the wire then holds it back."""
        while True:
            session, _ = self._sessions.get(client_id, (None, None))
            own = session.delivered_message_queue.qsize() if session else 0
            if self._broadcast_queue.qsize() < _MAX_QUEUED and own < _MAX_QUEUED_PER_CLIENT:
                return
            await asyncio.sleep(_CONGESTION_PAUSE_S)

    async def _authenticate(self, session: Session, _: ListenerConfig) -> bool:
        return session.client_id in self._connections

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        connection = self._connections.get(session.client_id or "")
        if connection is None:
            return False
        match action:
            case Action.PUBLISH:
                return access.may_publish(connection.identity, topic, retain=False)
            case Action.SUBSCRIBE:
                return access.may_subscribe(connection.identity, topic)
            case _:
                return access.may_receive(connection.identity, topic)

    async def _session_monitor(self) -> None:
        """Do nothing: `_serve` tidies up after each connection."""

    async def _client_message_loop(
        self, client_session: Session, handler: BrokerProtocolHandler
    ) -> None:
        disconnected = asyncio.create_task(handler.wait_disconnect())
        workers = [
            asyncio.create_task(self._distribute_from(client_session, handler)),
            asyncio.create_task(self._subscribe_for(client_session, handler)),
            asyncio.create_task(self._unsubscribe_for(client_session, handler)),
        ]
        try:
            await asyncio.wait([disconnected, *workers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for worker in workers:
                worker.cancel()
            outcomes = await asyncio.gather(*workers, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                logger.warning(
                    "mqtt_worker_failed",
                    extra={"client": client_session.client_id, "reason": repr(outcome)},
                )
        while not client_session.delivered_message_queue.empty():
            message = client_session.delivered_message_queue.get_nowait()
            await self._distribute(client_session, handler, message)
        packet = disconnected.result() if disconnected.done() else None
        disconnected.cancel()
        await self._handle_disconnect(client_session, handler, _finished(packet))

    async def _distribute_from(self, session: Session, handler: BrokerProtocolHandler) -> None:
        while True:
            message = await session.delivered_message_queue.get()
            await self._distribute(session, handler, message)

    async def _distribute(
        self, session: Session, handler: BrokerProtocolHandler, message: ApplicationMessage
    ) -> None:
        await self._handle_message_delivery(session, handler, _finished(message))

    async def _subscribe_for(self, session: Session, handler: BrokerProtocolHandler) -> None:
        while True:
            wanted = await handler.get_next_pending_subscription()
            await self._handle_subscription(session, handler, _finished(wanted))

    async def _unsubscribe_for(self, session: Session, handler: BrokerProtocolHandler) -> None:
        while True:
            unwanted = await handler.get_next_pending_unsubscription()
            await self._handle_unsubscription(session, handler, _finished(unwanted))

    async def _run_broadcast(
        self, running_tasks: deque[asyncio.Task[OutgoingApplicationMessage]]
    ) -> None:
        del running_tasks  # ours are in self._deliveries
        broadcast = await self._broadcast_queue.get()
        topic, data = str(broadcast["topic"]), bytes(broadcast["data"] or b"")
        for session, qos in list(self._subscribers(topic)):
            await self._deliver(session, topic, data, qos, retain=False)

    def _subscribers(self, topic: str) -> Iterator[tuple[Session, int]]:
        """Find who hears a topic: by its exact name, or as ingest by its channel."""
        yield from self._subscriptions.get(topic, ())
        try:
            channel = Topic.parse(topic).channel
        except ProtocolError:
            return
        yield from self._subscriptions.get(topics.all_devices(channel), ())

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        topic_filter, qos = subscription
        if not any(
            subscriber is session for subscriber, _ in self._subscriptions.get(topic_filter, ())
        ):
            return
        for topic, retained in list(self._retained_messages.items()):
            if self._matches(topic, topic_filter):
                await self._deliver(session, topic, bytes(retained.data), qos, retain=True)

    async def _deliver(
        self, session: Session, topic: str, data: bytes, qos: int, *, retain: bool
    ) -> None:
        connection = self._connections.get(session.client_id or "")
        handler = self._get_handler(session)
        if connection is None or handler is None or not session.transitions.is_connected():
            return
        if not access.may_receive(connection.identity, topic):
            return
        if connection.full:
            if not connection.identity.is_ingest:
                logger.warning("mqtt_client_too_slow", extra={"client": connection.client_id})
                connection.abort()
                return
            await connection.wait_while_full()
        connection.began_delivery()
        task = asyncio.ensure_future(handler.mqtt_publish(topic, data, qos, retain=retain))
        self._deliveries.add(task)
        task.add_done_callback(lambda done: self._delivered(connection, done))

    def _delivered(
        self, connection: Connection, task: asyncio.Task[OutgoingApplicationMessage]
    ) -> None:
        self._deliveries.discard(task)
        connection.ended_delivery()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug(
                "mqtt_delivery_failed",
                extra={"client": connection.client_id, "reason": repr(error)},
            )


def _finished(value: object) -> asyncio.Future[object]:
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


async def _wait_until_done(connection: Connection) -> bool:
    try:
        async with asyncio.timeout(_TAKEOVER_TIMEOUT_S):
            await connection.done.wait()
    except TimeoutError:
        return False
    return True

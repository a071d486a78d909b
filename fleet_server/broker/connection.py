"""One admitted connection: hands checked packets on, and counts what waits to be written to it."""

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

from fleet_server.broker import access, packets, streams
from fleet_server.broker.admission import Admitted
from fleet_server.broker.packets import Publish
from fleet_server.broker.streams import GatedReader, Packet, TimedWriter
from fleet_server.errors import MalformedError

logger = logging.getLogger(__name__)

MAX_KEEP_ALIVE_S = 1200
"""A client that asks for more, or for none, is looked after as if it had asked for this."""

MAX_OUTGOING_DEVICE = 64
MAX_OUTGOING_INGEST = 1000
"""Messages that may wait for a client's acknowledgement."""


class Connection:
    """The gate between one client and amqtt."""

    def __init__(
        self,
        *,
        admitted: Admitted,
        reader: StreamReader,
        writer: StreamWriter,
        wait_for_room: Callable[[str], Awaitable[None]],
    ) -> None:
        self.identity = admitted.identity
        self.public_key_sha256 = admitted.public_key_sha256
        self.client_id = admitted.connect.client_id
        self.reader = GatedReader(first=admitted.packet, next_packet=self._next_packet)
        self.writer = TimedWriter(writer)
        self.done = asyncio.Event()
        self._stream = reader
        self._transport = writer.transport
        self._wait_for_room = wait_for_room
        keep_alive_s = min(admitted.connect.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S)
        self._silence_s = 1.5 * keep_alive_s
        self._outgoing = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """Whether as much waits for this client as may."""
        limit = MAX_OUTGOING_INGEST if self.identity.is_ingest else MAX_OUTGOING_DEVICE
        return self._outgoing >= limit

    def began_delivery(self) -> None:
        """Count a message that is on its way."""
        self._outgoing += 1
        if self.full:
            self._room.clear()

    def ended_delivery(self) -> None:
        """Count a message that arrived or was given up."""
        self._outgoing -= 1
        self._room.set()

    async def wait_while_full(self) -> None:
        """Wait until the client took something, or is gone."""
        while self.full and not self._transport.is_closing():
            await self._room.wait()

    def abort(self) -> None:
        """Cut the connection; what amqtt runs for it ends by itself."""
        self.writer.is_closed = True
        self._transport.abort()
        self._room.set()

    async def _next_packet(self) -> Packet:
        """Read, check and return the client's next packet.

        Raises:
            ConnectionResetError: the connection is over, for whatever reason.
        """
        try:
            packet = await streams.read_packet(
                self._stream, limit_bytes=streams.MAX_PACKET_BYTES, timeout_s=self._silence_s
            )
            parsed = packets.parse(*packet)
            if isinstance(parsed, Publish):
                self._check(parsed)
                await self._wait_for_room(self.client_id)
        except MalformedError as error:
            logger.warning(
                "mqtt_packet_refused", extra={"client": self.client_id, "reason": str(error)}
            )
            raise ConnectionResetError from error
        except (EOFError, OSError, TimeoutError) as error:
            raise ConnectionResetError from error
        return packet

    def _check(self, publish: Publish) -> None:
        if not access.may_publish(self.identity, publish.topic, retain=publish.retain):
            retained = "retained " if publish.retain else ""
            raise MalformedError(f"{retained}messages on {publish.topic[:200]!r} are not allowed")

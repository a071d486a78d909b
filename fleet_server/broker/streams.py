"""The bytes of one connection: bounded, timed reads of whole packets, and writes that give up."""

import asyncio
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter

from fleet_protocol.messages import MAX_MESSAGE_BYTES
from fleet_server.errors import MalformedError

MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + 512
"""A message, its topic and its packet id."""

_PACKET_TIMEOUT_S = 60.0
"""A packet that has begun must be complete within this time."""

_WRITE_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 2.0

Packet = tuple[int, bytes]
"""First byte (type and flags) and body."""


async def read_packet(
    reader: StreamReader, *, limit_bytes: int, timeout_s: float, expected_first: int | None = None
) -> Packet:
    """Read one packet, never more than its bound.

    Args:
        reader: the connection.
        limit_bytes: bound on the body, checked before it is read.
        timeout_s: how long to wait for the first byte.
        expected_first: the only first byte that is accepted; None accepts any.

    Raises:
        MalformedError: the first byte is another one, or the length is above the bound.
        TimeoutError: nothing came, or the packet was not complete in time.
        EOFError: the connection ended (`asyncio.IncompleteReadError` is one).
        OSError: the connection broke.
    """
    async with asyncio.timeout(timeout_s):
        first = (await reader.readexactly(1))[0]
    if expected_first is not None and first != expected_first:
        raise MalformedError(f"the packet begins with {first:#04x}, not {expected_first:#04x}")
    async with asyncio.timeout(_PACKET_TIMEOUT_S):
        length = await _read_length(reader)
        if length > limit_bytes:
            raise MalformedError(f"a packet of {length} bytes; at most {limit_bytes} are read")
        return first, await reader.readexactly(length)


def encode_packet(packet: Packet) -> bytes:
    """Return a packet as it travels."""
    first, body = packet
    header, rest = bytearray([first]), len(body)
    while True:
        rest, digit = divmod(rest, 128)
        header.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes(header) + body


async def _read_length(reader: StreamReader) -> int:
    length = 0
    for position in range(4):
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << (7 * position)
        if not digit & 0x80:
            return length
    raise MalformedError("the length of a packet has more than four digits")


class GatedReader(ReaderAdapter):
    """What amqtt reads from: only packets that passed the gate, each in one piece."""

    def __init__(self, *, first: Packet, next_packet: Callable[[], Awaitable[Packet]]) -> None:
        self._next_packet = next_packet
        self._buffer = encode_packet(first)
        self._at = 0

    async def read(self, n: int = -1) -> bytes:
        """Return ``n`` bytes of the current packet; at its end, wait for the next one."""
        if n <= 0:
            return b""
        if self._at == len(self._buffer):
            # Lets the tasks that amqtt made of earlier packets run before a later one can end them.
            await asyncio.sleep(0)
            self._buffer, self._at = encode_packet(await self._next_packet()), 0
        taken = self._buffer[self._at : self._at + n]
        if len(taken) < n:
            raise IncompleteReadError(taken, n)
        self._at += n
        return taken

    def feed_eof(self) -> None:
        """Do nothing: the connection ends by being closed."""


class TimedWriter(StreamWriterAdapter):
    """What amqtt writes to: a client that does not read is cut off instead of waited for."""

    def __init__(self, writer: StreamWriter) -> None:
        super().__init__(writer)
        self._stream = writer

    async def drain(self) -> None:
        """Wait until the client took enough.

        Raises:
            ConnectionResetError: it took nothing for too long.
        """
        if self.is_closed:
            return
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._stream.drain()
        except TimeoutError:
            self.is_closed = True
            self._stream.transport.abort()
            raise ConnectionResetError("the client does not read") from None

    async def close(self) -> None:
        """Close, without waiting long for a client that does not answer."""
        self.is_closed = True
        if not self._stream.is_closing():
            self._stream.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._stream.wait_closed()
        except (TimeoutError, OSError):
            self._stream.transport.abort()

"""The delta format: a file as its differences from another one. Bytes in, bytes out, no I/O.

Weights of a network that was trained on stay near what they were and where they were, so the
difference of each number is small although hardly a byte is the same. A delta cuts the new file
into segments and holds each as its difference from the base at some offset, by bytes (INT8) or by
32-bit words whose bytes of equal weight are put together (FP32), compressed with LZMA. Layout, all
little-endian::

    "SKDELTA1"  SHA-256 of the base  SHA-256 of the new file
    for each segment: mode u8, length u32, offset in the base i64, payload length u32; payload

Arithmetic on whole segments is done on Python's long integers (SWAR: Lamport, "Multiple byte
processing with full-word instructions", CACM 18(8), 1975), so a device needs no numerical library.
A delta is not signed: what comes out is checked against the signed hash. It is bounded instead: no
segment unpacks to more than it states, and a segment is 64 KiB at most. All but the last are 4 KiB
at least, so that what each costs besides its bytes stays small, and time goes with the signed
length.
"""

import lzma
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache

from fleet_protocol.errors import ProtocolError

SEGMENT_BYTES = 64 * 1024
LEAST_SEGMENT_BYTES = 4 * 1024
MAGIC = b"SKDELTA1"
HEADER_BYTES = len(MAGIC) + 2 * 32
SEGMENT_HEADER = struct.Struct("<BIqI")

STORED, PACKED, BYTES, WORDS = 0, 1, 2, 3
"""Modes: as it is; compressed; difference of bytes; difference of words (plus 0 to 3: bytes before
the first whole word)."""
MODES = (STORED, PACKED, BYTES, *range(WORDS, WORDS + 4))

FILTERS = (
    {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": SEGMENT_BYTES, "lc": 0, "lp": 0, "pb": 0},
)
_WORD = 4

ReadBase = Callable[[int, int], bytes]
"""Return so many bytes of the base from an offset on; fewer at its end."""


class DeltaError(ProtocolError):
    """It is not a delta between these files."""


def header(base_sha256: str, new_sha256: str) -> bytes:
    """Return the beginning of a delta."""
    return MAGIC + bytes.fromhex(base_sha256) + bytes.fromhex(new_sha256)


class Rebuilder:
    """Makes the new file of a base and the pieces of a delta; holds two segments in memory."""

    def __init__(
        self, *, base_sha256: str, new_sha256: str, length: int, read_base: ReadBase
    ) -> None:
        """Take the names of both files and the signed length of the new one."""
        self._header = header(base_sha256, new_sha256)
        self._missing = length
        self._read_base = read_base
        self._buffer = bytearray()
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what of the new file a piece of the delta completes.

        Raises:
            DeltaError: it is not a delta between these files, or goes beyond the signed length.
        """
        self._buffer += piece
        if not self._begun:
            if len(self._buffer) < HEADER_BYTES:
                return
            if self._take(HEADER_BYTES) != self._header:
                raise DeltaError("the delta is not one between these two files")
            self._begun = True
        while (segment := self._segment()) is not None:
            self._missing -= len(segment)
            yield segment

    def finish(self) -> None:
        """Accept the end of the delta.

        Raises:
            DeltaError: the new file is not complete, or there is more than it.
        """
        if self._missing or self._buffer or not self._begun:
            raise DeltaError(f"the delta ends {self._missing} bytes before the new file does")

    def _segment(self) -> bytes | None:
        if len(self._buffer) < SEGMENT_HEADER.size:
            return None
        mode, length, offset, payload_bytes = SEGMENT_HEADER.unpack_from(self._buffer)
        if mode not in MODES:
            raise DeltaError(f"the delta has a segment of the unknown mode {mode}")
        most, least = (min(self._missing, of) for of in (SEGMENT_BYTES, LEAST_SEGMENT_BYTES))
        if not 1 <= least <= length <= most or payload_bytes > length:
            raise DeltaError(
                f"the delta has a segment of {length} bytes in {payload_bytes}, where "
                f"{least} to {most} are allowed"
            )
        if len(self._buffer) < SEGMENT_HEADER.size + payload_bytes:
            return None
        self._take(SEGMENT_HEADER.size)
        content = unpacked(mode, self._take(payload_bytes), length)
        if mode < BYTES:
            return content
        return added(mode, base_segment(self._read_base, offset, length), content)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def unpacked(mode: int, payload: bytes, length: int) -> bytes:
    """Return the content of a segment.

    Raises:
        DeltaError: it is damaged, or has another length than it states.
    """
    content = payload
    if mode != STORED:
        try:
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
            content = decompressor.decompress(payload, max_length=length + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise DeltaError(f"the delta is damaged: {error}") from error
    if len(content) != length:
        raise DeltaError(f"a segment of the delta does not unpack to the {length} bytes it states")
    return content


def base_segment(read_base: ReadBase, offset: int, length: int) -> bytes:
    """Return a part of the base; what lies outside of it counts as zeros."""
    before = min(max(-offset, 0), length)
    found = read_base(offset + before, length - before) if length > before else b""
    return (bytes(before) + found).ljust(length, b"\0")


def added(mode: int, base: bytes, difference: bytes) -> bytes:
    """Return the new segment of a base segment and the difference from it."""
    if mode == BYTES:
        return _add(base, difference, 1)
    start, end = _words(mode, len(base))
    planes = difference[start:end]
    words = bytearray(len(planes))
    quarter = len(planes) // _WORD
    for plane in range(_WORD):
        words[plane::_WORD] = planes[plane * quarter : (plane + 1) * quarter]
    return (
        _add(base[:start], difference[:start], 1)
        + _add(base[start:end], bytes(words), _WORD)
        + _add(base[end:], difference[end:], 1)
    )


def subtracted(mode: int, new: bytes, base: bytes) -> bytes:
    """Return the difference of a new segment from a base segment, which `added` takes."""
    if mode == BYTES:
        return _subtract(new, base, 1)
    start, end = _words(mode, len(base))
    words = _subtract(new[start:end], base[start:end], _WORD)
    return (
        _subtract(new[:start], base[:start], 1)
        + b"".join(words[plane::_WORD] for plane in range(_WORD))
        + _subtract(new[end:], base[end:], 1)
    )


def _words(mode: int, length: int) -> tuple[int, int]:
    """Return where the whole words of a segment begin and end."""
    start = min(mode - WORDS, length)
    return start, start + (length - start) // _WORD * _WORD


def _add(base: bytes, difference: bytes, width: int) -> bytes:
    top, rest = _masks(len(base), width)
    x, y = int.from_bytes(base, "little"), int.from_bytes(difference, "little")
    return (((x & rest) + (y & rest)) ^ ((x ^ y) & top)).to_bytes(len(base), "little")


def _subtract(new: bytes, base: bytes, width: int) -> bytes:
    top, rest = _masks(len(new), width)
    x, y = int.from_bytes(new, "little"), int.from_bytes(base, "little")
    return (((x | top) - (y & rest)) ^ ((x ^ y ^ top) & top)).to_bytes(len(new), "little")


@lru_cache(maxsize=8)
def _masks(length: int, width: int) -> tuple[int, int]:
    """Return a mask of the highest bit of each number and one of all others."""
    top = int.from_bytes((b"\0" * (width - 1) + b"\x80") * (length // width), "little")
    return top, top ^ int.from_bytes(b"\xff" * length, "little")

"""Makes deltas: finds where in the base a segment comes from, and how it is said shortest."""

import hashlib
import lzma
import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from fleet_protocol.delta import (
    BYTES,
    FILTERS,
    MODES,
    PACKED,
    SEGMENT_BYTES,
    SEGMENT_HEADER,
    STORED,
    base_segment,
    header,
    subtracted,
)

Bytes = bytes | mmap.mmap

_SAMPLES = 4
_SAMPLE_BYTES = 1024
_SEARCH_BYTES = 1024
_ANCHOR_BYTES = 32
_CLEARLY_BETTER = 1.05


def encode(base: Bytes, new: Bytes) -> Iterator[bytes]:
    """Yield the delta from one file to another.

    Both may be memory-mapped; not more than some segments are copied at once.
    """
    yield header(hashlib.sha256(base).hexdigest(), hashlib.sha256(new).hexdigest())
    shift = 0
    for start in range(0, len(new), SEGMENT_BYTES):
        segment = new[start : start + SEGMENT_BYTES]
        shift = _aligned(base, segment, start, shift, len(base) - len(new))
        yield _encoded(base, segment, start + shift)


@dataclass(frozen=True, slots=True)
class _Form:
    mode: int
    content: bytes


def _encoded(base: Bytes, segment: bytes, offset: int) -> bytes:
    old = base_segment(lambda at, size: base[at : at + size], offset, len(segment))
    forms = [_Form(PACKED, segment)]
    forms += [_Form(mode, subtracted(mode, segment, old)) for mode in MODES if mode >= BYTES]
    # A quick compressor finds the best form; the thorough one is run on that alone.
    best = min(forms, key=lambda form: len(zlib.compress(form.content, 1)))
    payload = lzma.compress(best.content, lzma.FORMAT_RAW, filters=FILTERS)
    mode = best.mode
    if len(payload) >= len(segment):
        mode, payload = STORED, segment
    return SEGMENT_HEADER.pack(mode, len(segment), offset, len(payload)) + payload


def _aligned(base: Bytes, segment: bytes, start: int, before: int, surplus: int) -> int:
    """Return by how much the segment has moved: where the most bytes are the same.

    A layer keeps its place but for what was put in before it, so the shift is mostly that of the
    segment before.
    """
    shifts = {before, 0, surplus, *_anchored(base, segment, start)}
    best = max(shifts, key=lambda shift: (_same(base, segment, start + shift), shift == before))
    near = range(best - _SEARCH_BYTES, best + _SEARCH_BYTES + 1)
    nearest = max(near, key=lambda shift: _same(base, segment, start + shift))
    clearly = _same(base, segment, start + nearest) > _CLEARLY_BETTER * _same(
        base, segment, start + best
    )
    return nearest if clearly else best


def _anchored(base: Bytes, segment: bytes, start: int) -> list[int]:
    """Return the shifts at which a few bytes of the segment's middle occur in the base."""
    middle = len(segment) // 2
    anchor = segment[middle : middle + _ANCHOR_BYTES]
    if len(anchor) < _ANCHOR_BYTES or len(set(anchor)) < _ANCHOR_BYTES // 4:
        return []
    found = base.find(anchor)
    return [] if found < 0 else [found - middle - start]


def _same(base: Bytes, segment: bytes, offset: int) -> int:
    """Count the bytes of samples of a segment that are the same in the base."""
    same = 0
    for number in range(_SAMPLES):
        at = len(segment) * number // _SAMPLES
        new = segment[at : at + _SAMPLE_BYTES]
        old = base[max(offset + at, 0) : max(offset + at + len(new), 0)]
        if len(old) == len(new):
            difference = int.from_bytes(new, "little") ^ int.from_bytes(old, "little")
            same += difference.to_bytes(len(new), "little").count(0)
    return same

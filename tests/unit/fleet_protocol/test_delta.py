"""The delta format: what goes in comes out, and a hostile delta stays small and is refused."""

import hashlib
import lzma
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.delta import (
    BYTES,
    FILTERS,
    HEADER_BYTES,
    MODES,
    PACKED,
    SEGMENT_BYTES,
    SEGMENT_HEADER,
    STORED,
    WORDS,
    DeltaError,
    Rebuilder,
    added,
    base_segment,
    header,
    subtracted,
)
from fleet_server.deltas.encoding import encode

RANDOM = random.Random(7)  # noqa: S311 (weights)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def rebuild(delta: bytes, base: bytes, new: bytes, *, piece: int = 1000) -> bytes:
    rebuilder = Rebuilder(
        base_sha256=sha256(base),
        new_sha256=sha256(new),
        length=len(new),
        read_base=lambda offset, size: base[offset : offset + size],
    )
    made = b"".join(
        part
        for start in range(0, len(delta), piece)
        for part in rebuilder.feed(delta[start : start + piece])
    )
    rebuilder.finish()
    return made


def delta_of(base: bytes, new: bytes) -> bytes:
    return b"".join(encode(base, new))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode >= BYTES])
@given(both=st.binary(max_size=140))
@settings(max_examples=50)
def test_adding_undoes_subtracting(mode: int, both: bytes) -> None:
    half = len(both) // 2
    new, base = both[:half], both[half : 2 * half]
    assert added(mode, base, subtracted(mode, new, base)) == new


@given(base=st.binary(max_size=3000), new=st.binary(max_size=3000), piece=st.integers(1, 500))
@settings(max_examples=30)
def test_any_file_is_rebuilt_from_any_other(base: bytes, new: bytes, piece: int) -> None:
    assert rebuild(delta_of(base, new), base, new, piece=piece) == new


def weights(count: int) -> list[float]:
    return [RANDOM.gauss(0, 0.1) for _ in range(count)]


def fp32(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def int8(values: list[float]) -> bytes:
    return struct.pack(f"{len(values)}b", *(max(-127, min(127, round(400 * v))) for v in values))


@pytest.mark.parametrize(
    ("make", "count", "most"), [(int8, 140_000, 0.35), (fp32, 35_000, 0.8)], ids=["int8", "fp32"]
)
@pytest.mark.parametrize("moved", [b"", b"x", b"xyz" * 100], ids=["in place", "by 1", "by 300"])
def test_weights_that_were_trained_on_become_small(
    make: object, count: int, most: float, moved: bytes
) -> None:
    """Hardly a byte is the same, and something was put in before them."""
    old = weights(count)
    new = [value + RANDOM.gauss(0, 0.001) for value in old]
    assert callable(make)
    base, following = b"graph" + make(old), b"graph" + moved + make(new)
    delta = delta_of(base, following)
    assert rebuild(delta, base, following, piece=65536) == following
    assert len(delta) < most * len(following)
    assert len(delta) < 0.9 * len(lzma.compress(following))


def test_what_lies_outside_of_the_base_counts_as_zeros() -> None:
    def read(offset: int, size: int) -> bytes:
        assert offset >= 0
        return b"abc"[offset : offset + size]

    cases = {(-2, 3): b"\0\0a", (2, 3): b"c\0\0", (-9, 2): b"\0\0", (9, 2): b"\0\0"}
    for (offset, length), expected in cases.items():
        assert base_segment(read, offset, length) == expected


NEW = bytes(range(256)) * 4
BASE = NEW[::-1]
START = header(sha256(BASE), sha256(NEW))


def segment(mode: int, length: int, payload: bytes, *, offset: int = 0) -> bytes:
    return SEGMENT_HEADER.pack(mode, length, offset, len(payload)) + payload


def packed(content: bytes) -> bytes:
    return lzma.compress(content, lzma.FORMAT_RAW, filters=FILTERS)


BOMB = packed(bytes(8 * 1024 * 1024))
HOSTILE = {
    "empty": b"",
    "only a header": START,
    "another base": header(sha256(NEW), sha256(NEW)) + segment(STORED, 1024, NEW),
    "another file": header(sha256(BASE), sha256(BASE)) + segment(STORED, 1024, NEW),
    "no delta at all": NEW,
    "cut off": (START + segment(STORED, 1024, NEW))[:-1],
    "a segment less": START + segment(STORED, 1000, NEW[:1000]),
    "more after the end": START + segment(STORED, 1024, NEW) + b"x",
    "another segment": START + segment(STORED, 1024, NEW) * 2,
    "longer than signed": START + segment(STORED, 1025, NEW + b"x"),
    "a segment of no length": START + segment(STORED, 0, b""),
    "segments of hardly any length": START + segment(STORED, 1, b"x") * 1024,
    "a huge segment": START + segment(PACKED, 2**32 - 1, b"x" * 10),
    "a payload larger than its content": START + segment(PACKED, 10, b"x" * 11),
    "an unknown mode": START + segment(99, 1024, NEW),
    "a bomb": START + segment(PACKED, 1024, BOMB[:1024]),
    "content that is too short": START + segment(PACKED, 1024, packed(NEW[:-1])),
    "damaged content": START + segment(WORDS, 1024, b"\x01\x02" * 300),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_delta_that_is_wrong_is_refused(hostile: bytes) -> None:
    with pytest.raises(DeltaError):
        rebuild(hostile, BASE, NEW)


@pytest.mark.parametrize(
    ("lengths", "taken"),
    [([4096, 4096, 1], True), ([65_536, 1], True), ([1], True), ([4095, 1], False)],
)
def test_every_segment_but_the_last_is_worth_its_trouble(
    lengths: list[int], *, taken: bool
) -> None:
    new = bytes(sum(lengths))
    delta = header(sha256(BASE), sha256(new))
    delta += b"".join(segment(STORED, length, bytes(length)) for length in lengths)
    if taken:
        assert rebuild(delta, BASE, new) == new
    else:
        with pytest.raises(DeltaError, match="where 4096 to 4096 are allowed"):
            rebuild(delta, BASE, new)


def test_a_bomb_does_not_unpack_beyond_its_segment() -> None:
    rebuilder = Rebuilder(
        base_sha256=sha256(BASE),
        new_sha256=sha256(NEW),
        length=10**9,
        read_base=lambda _offset, size: bytes(size),
    )
    assert len(BOMB) < SEGMENT_BYTES
    tracemalloc.start()
    with pytest.raises(DeltaError, match="does not unpack"):
        list(rebuilder.feed(START + segment(PACKED, SEGMENT_BYTES, BOMB)))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert len(START) == HEADER_BYTES


@given(position=st.integers(0, 2**32), value=st.integers(1, 255))
@settings(max_examples=60)
def test_a_flipped_byte_is_refused_or_changes_the_hash(position: int, value: int) -> None:
    delta = bytearray(delta_of(BASE, NEW))
    delta[position % len(delta)] ^= value
    try:
        made = rebuild(bytes(delta), BASE, NEW)
    except DeltaError:
        return
    # A change of what the format leaves open (LZMA's own padding) may do no harm.
    assert made == NEW or sha256(made) != sha256(NEW)

"""Compressed bodies: what comes out is what went in, and never more than is allowed."""

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.compression import ENCODINGS, chosen, compressed, decompressed
from edge_agent.inference.errors import RequestError, TooLargeError


@given(st.binary(max_size=500), st.sampled_from(ENCODINGS), st.none() | st.integers(0, 99))
def test_bodies_survive_the_way(body: bytes, encoding: str, header_length: int | None) -> None:
    packed = compressed([body[:100], memoryview(body)[100:]], encoding)
    found = decompressed(packed, encoding, max_bytes=500, header_length=header_length)
    assert bytes(found) == body


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_given_up(encoding: str) -> None:
    bomb = compressed([bytes(10_000_000)], encoding)
    with pytest.raises(TooLargeError, match="larger than 1000 bytes once it is decompressed"):
        decompressed(bomb, encoding, max_bytes=1000, header_length=None)
    assert (
        len(
            decompressed(
                compressed([bytes(1000)], encoding), encoding, max_bytes=1000, header_length=None
            )
        )
        == 1000
    )


@given(st.binary(max_size=100), st.sampled_from(ENCODINGS))
def test_arbitrary_bytes_raise_nothing_else(body: bytes, encoding: str) -> None:
    for damaged in (body, gzip.compress(body)[:-2] + body, zlib.compress(body)[:5] + body):
        with contextlib.suppress(RequestError):
            decompressed(damaged, encoding, max_bytes=50, header_length=7)


@given(st.text(max_size=40))
def test_any_wish_is_understood_somehow(accepted: str) -> None:
    assert chosen(accepted) in (None, *ENCODINGS)

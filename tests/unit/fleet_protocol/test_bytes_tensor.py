"""BYTES tensors: what is packed unpacks, and nothing else does."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import bytes_tensor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Datatype, GoldenTensor


@given(st.lists(st.binary(max_size=20)))
def test_elements_survive(elements: list[bytes]) -> None:
    packed = bytes_tensor.pack(elements)
    assert bytes_tensor.unpack(packed, len(elements)) == elements
    for other in (len(elements) - 1, len(elements) + 1):
        if other >= 0:
            with pytest.raises(ProtocolError):
                bytes_tensor.unpack(packed, other)


@given(st.binary(max_size=40), st.integers(0, 10))
def test_what_unpacks_packs_to_the_same(data: bytes, count: int) -> None:
    try:
        elements = bytes_tensor.unpack(data, count)
    except ProtocolError:
        return
    assert (bytes_tensor.pack(elements), len(elements)) == (data, count)


def test_a_huge_count_costs_nothing() -> None:
    with pytest.raises(ProtocolError, match="cannot hold 4611686018427387904 elements"):
        bytes_tensor.unpack(b"", 2**62)


def golden(data: bytes, shape: list[int]) -> GoldenTensor:
    text = base64.b64encode(data).decode()
    return GoldenTensor(name="x", datatype=Datatype.BYTES, shape=shape, data_base64=text)


def test_golden_strings_are_counted() -> None:
    data = bytes_tensor.pack([b"a", b"", b"ccc"])
    assert golden(data, [3, 1]).data() == data
    with pytest.raises(ProtocolError, match="golden tensor 'x': element 3 of 4 has no length"):
        golden(data, [2, 2]).data()
    with pytest.raises(ProtocolError, match="golden tensor 'x': 7 bytes follow"):
        golden(data, [2]).data()

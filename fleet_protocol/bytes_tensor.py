"""The bytes of a BYTES tensor: each element behind its length, four bytes little-endian.

Source: Triton's binary tensor data extension (protocol/extension_binary_data.md).
"""

import struct
from collections.abc import Iterable

from fleet_protocol.errors import ProtocolError

_LENGTH = struct.Struct("<I")
LENGTH_BYTES = _LENGTH.size
"""Taken by the length of each element, so the least that an element takes."""


def pack(elements: Iterable[bytes]) -> bytes:
    """Return elements as the bytes of a tensor.

    Raises:
        ProtocolError: an element is longer than four bytes can say.
    """
    parts: list[bytes] = []
    for element in elements:
        if len(element) >= 1 << 32:
            raise ProtocolError("an element of a BYTES tensor has 4 GiB or more")
        parts += _LENGTH.pack(len(element)), element
    return b"".join(parts)


def unpack(data: bytes | bytearray | memoryview, count: int) -> list[bytes]:
    """Return the elements of a tensor in row-major order.

    Args:
        data: the bytes of the tensor.
        count: how many elements its shape asks for.

    Raises:
        ProtocolError: the bytes are cut short, or are more or fewer elements.
    """
    view = memoryview(data)
    if len(view) < count * LENGTH_BYTES:
        raise ProtocolError(f"{len(view)} bytes cannot hold {count} elements with their lengths")
    elements: list[bytes] = []
    at = 0
    for number in range(count):
        begin = at + LENGTH_BYTES
        if begin > len(view):
            raise ProtocolError(f"element {number} of {count} has no length: the bytes end before")
        at = begin + _LENGTH.unpack_from(view, at)[0]
        if at > len(view):
            raise ProtocolError(
                f"element {number} of {count} is said to have {at - begin} bytes, "
                f"{len(view) - begin} are left"
            )
        elements.append(view[begin:at].tobytes())
    if at != len(view):
        raise ProtocolError(f"{len(view) - at} bytes follow the last of {count} elements")
    return elements

"""Memory for bytes that are about to be received, without first filling it with zeros.

``bytearray(size)`` writes all of it once; for an image's 600 kB that took 60 µs of a call, more
than the rest of reading the request. What lies in the memory before is whatever this process has
freed: none of it may be read before it has been overwritten.
"""

import ctypes

_LEAST_BYTES = 32 * 1024
"""Below this size the zeros cost less than the call through ctypes."""

_from_size = ctypes.pythonapi.PyByteArray_FromStringAndSize
_from_size.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]
_from_size.restype = ctypes.py_object


def unwritten(size_bytes: int) -> bytearray:
    """Return an array with anything in it.

    Source: https://docs.python.org/3/c-api/bytearray.html; without bytes to copy from, the function
    leaves the new array as the allocator gave it.

    Raises:
        MemoryError: there is not that much.
    """
    if size_bytes < _LEAST_BYTES:
        return bytearray(size_bytes)
    array: bytearray = _from_size(None, size_bytes)
    return array

"""Bodies that are compressed on the way: gzip and deflate, both bounded, both beside the loop.

Applications of the same machine gain nothing by it; clients that are written for a network may ask
for it all the same.
"""

import gzip
import zlib
from collections.abc import Sequence

from edge_agent.inference.errors import RequestError, TooLargeError
from edge_agent.inference.tensors import Data

ENCODINGS = ("gzip", "deflate")
"""Understood in both directions; ``deflate`` is the zlib format (RFC 9110, 8.4.1.2)."""

MIN_BYTES = 1024
"""Of an answer: below it, compressing saves less than its header costs."""

_LEVEL = 1
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_ALIGNMENT = 16


def decompressed(
    body: Data, encoding: str, *, max_bytes: int, header_length: int | None
) -> memoryview:
    """Return the body as it was before it was compressed; blocks, so call it in a thread.

    Args:
        body: as it arrived.
        encoding: one of `ENCODINGS`.
        max_bytes: a body that grows beyond it is given up at once.
        header_length: what follows so many bytes begins at a multiple of 16, as tensors want it.

    Raises:
        TooLargeError: too much came out.
        RequestError: the body is not what the encoding says.
    """
    padding = -(header_length or 0) % _ALIGNMENT
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        # One byte more than is allowed tells apart "just fits" and "too much".
        out = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"the body is not {encoding}: {error}") from error
    if len(out) > max_bytes:
        raise TooLargeError(
            f"the request is larger than {max_bytes} bytes once it is decompressed "
            "(setting runtime.max_request_bytes)"
        )
    if not stream.eof:
        raise RequestError("the compressed body is cut short")
    if stream.unused_data:
        raise RequestError(f"{len(stream.unused_data)} bytes follow the compressed body")
    return memoryview(b"".join((bytes(padding), out)))[padding:]


def chosen(accepted: str) -> str | None:
    """Return the encoding for an answer, by its ``Accept-Encoding``; None for none.

    Args:
        accepted: value of the header (RFC 9110, 12.5.3). ``*`` does not ask for anything.
    """
    weights: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        name, _, parameters = entry.partition(";")
        weights[name.strip()] = _weight(parameters)
    best = max(ENCODINGS, key=lambda name: weights.get(name, 0.0))
    weight = weights.get(best, 0.0)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


def compressed(parts: Sequence[Data], encoding: str) -> bytes:
    """Return a body compressed; blocks, so call it in a thread."""
    body = b"".join(parts)
    if encoding == "gzip":
        return gzip.compress(body, _LEVEL, mtime=0)
    return zlib.compress(body, _LEVEL)


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0

"""Gives memory back that only loading needed: freed heap, and library code that will not run again.

An inference library touches most of its code once, while it reads and optimises a model; those
pages stay resident though no call needs them. They are unmapped here, not evicted: what a call does
need comes back from the page cache with its next use (0.6 ms in all for EfficientNet-Lite0, once).
"""

import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
_LARGEST_REUSED_BYTES = 2 * 1024 * 1024
_KEPT_BYTES = 8 * 1024 * 1024
_MADV_DONTNEED = 4
_SMALLEST_BYTES = 256 * 1024


def limit_arenas(count: int = _ARENAS) -> None:
    """Let all threads share a few heaps: each thread's own would keep what its loads freed.

    Call it before threads start. Where the C library is not glibc, nothing happens.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)
    except (OSError, AttributeError):
        logger.debug("arenas_not_limited")


def reuse_freed_heap() -> None:
    """Keep some freed heap for the next call instead of giving it back at once.

    Every call allocates memory for its tensors; the kernel would take it back and hand it out anew,
    page by page: 400 µs for two copies of 600 kB, 17 µs with this. Call it before threads start.
    """
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_REUSED_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    except (OSError, AttributeError):
        logger.debug("heap_not_kept")


def give_back() -> None:
    """Return freed heap to the kernel and unmap library code until it is called again."""
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        unmap = library.madvise
    except (OSError, AttributeError):
        logger.debug("memory_not_given_back")
        return
    unmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, size in _library_code():
        unmap(start, size, _MADV_DONTNEED)


def _library_code() -> Iterator[tuple[int, int]]:
    """Yield address and size of executable mappings of files, which nobody ever writes to."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[1] != "r-xp" or not fields[5].startswith("/"):  # noqa: PLR2004 (proc(5))
            continue
        start, _, end = fields[0].partition("-")
        size = int(end, 16) - int(start, 16)
        if size >= _SMALLEST_BYTES:
            yield int(start, 16), size

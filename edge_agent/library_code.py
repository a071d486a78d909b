"""The code of the libraries in this process: what of it is mapped, and unmapping it.

An inference library touches most of its code once, while it reads and optimises a model; those
pages stay resident though no call needs them. They are unmapped here, not evicted: what is called
again comes back from the page cache. That costs a call of a small model as much as its run (0.5
ms), so beside calls only what was not mapped before is unmapped.
"""

import ctypes
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

Unused = Mapping[int, Sequence[tuple[int, int]]]
"""Ranges (begin, end) of which no page is mapped, by the address of the library's code."""

_SELF = Path("/proc/self")
_MADV_DONTNEED = 4
_SMALLEST_BYTES = 256 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ENTRY_BYTES = 8
_EXECUTABLE_FILE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ \S+ +/", re.MULTILINE)
"""A line of ``/proc/self/maps``: https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html"""

_ABSENT = re.compile(rb"[\x00-\x7f]{16,}")
"""The highest bytes of the entries of pages that are not present, at least as many as the kernel
maps around a fault: https://docs.kernel.org/admin-guide/mm/pagemap.html"""


def unused() -> Unused:
    """Return what of the libraries' code is not mapped now; nothing where the kernel hides it."""
    try:
        descriptor = os.open(_SELF / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {start: [] for start, _ in _mappings()}
    try:
        return {start: _absent(descriptor, start, end) for start, end in _mappings()}
    finally:
        os.close(descriptor)


def unmap(only: Unused | None = None) -> None:
    """Unmap library code until it is called again.

    Args:
        only: from `unused`: this much of the libraries that were there, and all of those that have
            come since. None for all of all.
    """
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        logger.debug("code_not_unmapped")
        return
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in _mappings():
        for first, last in (only or {}).get(start, [(start, end)]):
            if last <= end:
                advise(first, last - first, _MADV_DONTNEED)


def _mappings() -> Iterator[tuple[int, int]]:
    """Yield begin and end of executable mappings of files, which nobody ever writes to."""
    try:
        maps = (_SELF / "maps").read_bytes()
    except OSError:
        return
    for found in _EXECUTABLE_FILE.finditer(maps):
        start, end = (int(address, 16) for address in found.groups())
        if end - start >= _SMALLEST_BYTES:
            yield start, end


def _absent(page_map: int, start: int, end: int) -> list[tuple[int, int]]:
    count = (end - start) // _PAGE_BYTES
    try:
        entries = os.pread(page_map, count * _ENTRY_BYTES, start // _PAGE_BYTES * _ENTRY_BYTES)
    except OSError:
        return []
    return [
        (start + found.start() * _PAGE_BYTES, start + found.end() * _PAGE_BYTES)
        for found in _ABSENT.finditer(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES])
    ]

"""A file that is mapped into this process as a library's code is."""

import mmap
from pathlib import Path

from edge_agent import library_code

SIZE = 8 * 1024 * 1024
FAR = SIZE // 2
"""More pages lie before it than the kernel ever maps for one fault."""


class MappedLibrary:
    """The mapping, until it is closed."""

    def __init__(self, path: Path) -> None:
        """Write the file and map it."""
        path.write_bytes(b"\xc3" * SIZE)
        earlier = set(library_code.unused())
        with path.open("rb") as file:
            self._map = mmap.mmap(
                file.fileno(), SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC
            )
        (self.start,) = set(library_code.unused()) - earlier

    def call(self, offset: int) -> None:
        """Touch the code at an offset in bytes."""
        assert self._map[offset] == 0xC3

    def is_mapped(self, offset: int) -> bool:
        """Say whether the code there is mapped now."""
        at = self.start + offset
        ranges = library_code.unused()[self.start]
        return not any(begin <= at < end for begin, end in ranges)

    def close(self) -> None:
        """Take the library out of the process."""
        self._map.close()

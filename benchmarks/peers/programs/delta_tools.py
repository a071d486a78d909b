"""Makes or applies a delta with one tool and says what that took; runs in the tool's environment.

What is measured is from the base and the delta on disk to the new file on disk: the CPU time of the
quickest of some turns, and the memory that the process takes at most in the first one above what it
held with the tool loaded.
"""

# mypy: ignore-errors
# ruff: noqa: D102, ANN202
# Each tool has the same two methods, which make a delta and apply it.
# The libraries are those of another environment; the project's has none of them to check against.

import argparse
import hashlib
import json
import lzma
import struct
import time
from importlib import import_module
from pathlib import Path

from peak_memory import PeakMemory

_LEVEL = 19
_PIECE = 64 * 1024
_TURNS = {"make": 1, "apply": 3}
_COPY = struct.Struct("<QI")


class Zstd:
    """The new file compressed, without the old one: what a smaller download costs anyway."""

    def __init__(self) -> None:
        self.zstd = import_module("zstandard")

    def make(self, _base: Path, new: Path, delta: Path) -> None:
        delta.write_bytes(self.zstd.ZstdCompressor(level=_LEVEL).compress(new.read_bytes()))

    def apply(self, _base: Path, delta: Path, new: Path) -> None:
        with delta.open("rb") as source, new.open("wb") as target:
            self.zstd.ZstdDecompressor().copy_stream(source, target)


class ZstdWithBase(Zstd):
    """The old file as dictionary, as ``zstd --patch-from`` does."""

    def make(self, base: Path, new: Path, delta: Path) -> None:
        content = new.read_bytes()
        window_log = max(10, (base.stat().st_size + len(content)).bit_length())
        parameters = self.zstd.ZstdCompressionParameters.from_level(
            _LEVEL, window_log=window_log, enable_ldm=True, source_size=len(content)
        )
        compressor = self.zstd.ZstdCompressor(
            dict_data=self._dictionary(base), compression_params=parameters
        )
        delta.write_bytes(compressor.compress(content))

    def apply(self, base: Path, delta: Path, new: Path) -> None:
        decompressor = self.zstd.ZstdDecompressor(
            dict_data=self._dictionary(base), max_window_size=2**31
        )
        with delta.open("rb") as source, new.open("wb") as target:
            decompressor.copy_stream(source, target)

    def _dictionary(self, base: Path):
        kind = self.zstd.DICT_TYPE_RAWCONTENT
        return self.zstd.ZstdCompressionDict(base.read_bytes(), dict_type=kind)


class Chunks(Zstd):
    """Chunks that the content defines (FastCDC, 8 KiB): known ones are copied, others are sent."""

    def __init__(self) -> None:
        super().__init__()
        fastcdc = import_module("fastcdc").fastcdc
        self.chunks = lambda data: fastcdc(data, 2048, 8192, 65536)

    def make(self, base: Path, new: Path, delta: Path) -> None:
        old, content = base.read_bytes(), new.read_bytes()
        held = {
            hashlib.sha256(old[one.offset : one.offset + one.length]).digest(): one.offset
            for one in self.chunks(old)
        }
        compressor = self.zstd.ZstdCompressor(level=_LEVEL)
        with delta.open("wb") as target:
            for one in self.chunks(content):
                piece = content[one.offset : one.offset + one.length]
                at = held.get(hashlib.sha256(piece).digest())
                sent = b"" if at is not None else compressor.compress(piece)
                target.write(_COPY.pack(at if at is not None else len(sent), one.length))
                target.write(struct.pack("?", at is None) + sent)

    def apply(self, base: Path, delta: Path, new: Path) -> None:
        decompressor = self.zstd.ZstdDecompressor()
        with delta.open("rb") as source, base.open("rb") as old, new.open("wb") as target:
            while head := source.read(_COPY.size):
                where, length = _COPY.unpack(head)
                if source.read(1) == b"\1":
                    target.write(decompressor.decompress(source.read(where)))
                else:
                    old.seek(where)
                    target.write(old.read(length))


class Bsdiff:
    """bsdiff4."""

    def __init__(self) -> None:
        self.bsdiff4 = import_module("bsdiff4")

    def make(self, base: Path, new: Path, delta: Path) -> None:
        self.bsdiff4.file_diff(str(base), str(new), str(delta))

    def apply(self, base: Path, delta: Path, new: Path) -> None:
        self.bsdiff4.file_patch(str(base), str(new), str(delta))


class Detools:
    """detools, made for small devices: bsdiff's differences as a stream, LZMA."""

    def __init__(self) -> None:
        self.detools = import_module("detools")

    def make(self, base: Path, new: Path, delta: Path) -> None:
        with base.open("rb") as old, new.open("rb") as content, delta.open("wb") as target:
            self.detools.create_patch(old, content, target, compression="lzma")

    def apply(self, base: Path, delta: Path, new: Path) -> None:
        with base.open("rb") as old, delta.open("rb") as source, new.open("wb") as target:
            self.detools.apply_patch(old, source, target)


class AlignedDifferences:
    """The project's own."""

    def __init__(self) -> None:
        self.rebuilt = import_module("edge_agent.control.delta_reading").rebuilt
        self.write = import_module("fleet_server.deltas.worker").write

    def make(self, base: Path, new: Path, delta: Path) -> None:
        self.write(base, new, delta, most=new.stat().st_size)

    def apply(self, base: Path, delta: Path, new: Path) -> None:
        with delta.open("rb") as source, new.open("wb") as target:
            pieces = iter(lambda: source.read(_PIECE), b"")
            # The base is named by its hash and the new file by what it will be, as on a device.
            length = int(new.with_suffix(".length").read_text())
            for piece in self.rebuilt(pieces, base=base, sha256=new.name, length=length):
                target.write(piece)


class SmallestSegments(AlignedDifferences):
    """The project's own, made by who wants to keep a device busy: the smallest segments, packed."""

    def make(self, base: Path, new: Path, delta: Path) -> None:
        form = import_module("fleet_protocol.delta")
        old, content = base.read_bytes(), new.read_bytes()
        size = form.LEAST_SEGMENT_BYTES
        with delta.open("wb") as target:
            target.write(form.header(base.name, new.name))
            for at in range(0, len(content), size):
                part = content[at : at + size]
                plain = form.base_segment(lambda start, of: old[start : start + of], at, len(part))
                difference = form.subtracted(form.WORDS, part, plain)
                payload = lzma.compress(difference, lzma.FORMAT_RAW, filters=form.FILTERS)
                mode = form.WORDS if len(payload) < len(part) else form.STORED
                payload = payload if mode == form.WORDS else part
                target.write(form.SEGMENT_HEADER.pack(mode, len(part), at, len(payload)) + payload)


TOOLS = {
    "zstd": Zstd,
    "zstd with the old file": ZstdWithBase,
    "content-defined chunks": Chunks,
    "bsdiff4": Bsdiff,
    "detools": Detools,
    "aligned differences": AlignedDifferences,
    "aligned differences in the smallest segments": SmallestSegments,
}


def main() -> None:
    """Run one tool once and print what it took as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("verb", choices=("make", "apply"))
    for name in ("base", "source", "target"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    work = getattr(TOOLS[options.tool](), options.verb)
    memory = PeakMemory()
    took_s, peak_bytes = [], []
    for _ in range(_TURNS[options.verb]):
        began_s = time.process_time()
        work(options.base, options.source, options.target)
        took_s.append(time.process_time() - began_s)
        peak_bytes.append(memory.grown_bytes())
    print(json.dumps({"cpu_s": min(took_s), "peak_bytes": peak_bytes[0]}))


if __name__ == "__main__":
    main()

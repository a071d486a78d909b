"""Cumulative counters of one loaded release, in a memory-mapped file.

The runtime owns one file for each release that it holds and only ever adds to it, before it
answers a call. The pages belong to the kernel, so a killed runtime loses no count. Control reads
the file at its leisure; words are aligned, so it never sees half a number. Nothing here locks or
enters the kernel on the hot path.

Layout, little-endian: 8 bytes magic, 8 bytes length of the label text, the label (JSON), padding
up to `_WORDS_OFFSET`, then 64-bit words: closed, requests, one per kind of error that the label
names, latency total in microseconds, one per latency bucket, one per class.
"""

import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.errors import AgentError
from fleet_protocol.histogram import MAX_INDEX, Histogram, bucket_index
from fleet_protocol.messages import ErrorKind
from fleet_protocol.names import Family, Version

_MAGIC = b"SKRYCNT1"
_HEADER = struct.Struct("<8sQ")
_WORDS_OFFSET = 128 * 1024
_ERROR_KINDS = tuple(ErrorKind)
_CLOSED = 0
_REQUESTS = 1
_ERRORS = 2
_TOTAL_US = _ERRORS + len(_ERROR_KINDS)
_BUCKETS = _TOTAL_US + 1
_BUCKET_COUNT = MAX_INDEX + 1
_CLASSES = _BUCKETS + _BUCKET_COUNT


class CountersError(AgentError):
    """A counter file cannot be made or is not one."""


class CounterFileError(CountersError):
    """The disk takes no counter file now."""


class CounterLabel(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a file counts for."""

    epoch: str
    family: Family
    version: Version
    variant: str
    classes: list[str] = []


class _StoredLabel(CounterLabel, frozen=True, kw_only=True):
    """The label in a file, which outlives the software that made it.

    Attributes:
        error_kinds: in the order of their words; the default is what the first files had.
    """

    error_kinds: tuple[str, ...] = ("bad_request", "backend")


@dataclass(frozen=True, slots=True)
class Counts:
    """The cumulative counts of a file at one moment.

    Attributes:
        closed: the runtime has unloaded the release; the counts are final.
    """

    label: CounterLabel
    closed: bool
    requests: int
    errors: dict[ErrorKind, int]
    latency_us: Histogram
    classes: dict[str, int]


class CounterWriter:
    """The runtime's side: creates the file and adds to it."""

    def __init__(self, path: Path | None, label: CounterLabel) -> None:
        """Create the file.

        Args:
            path: the file to create; None to count in memory, where nobody else sees the counts.
            label: whom the file counts for.

        Raises:
            CounterFileError: the file cannot be written.
            CountersError: the label is too long.
        """
        stored = _StoredLabel(**msgspec.structs.asdict(label), error_kinds=_ERROR_KINDS)
        text = msgspec.json.encode(stored)
        if _HEADER.size + len(text) > _WORDS_OFFSET:
            raise CountersError(
                f"the labels of {label.family} {label.version} take {len(text)} bytes of JSON, "
                f"at most {_WORDS_OFFSET - _HEADER.size} are counted"
            )
        self._class_count = len(label.classes)
        size = _WORDS_OFFSET + 8 * (_CLASSES + self._class_count)
        header = _HEADER.pack(_MAGIC, len(text)) + text
        self._map = mmap.mmap(-1, size) if path is None else _mapped(path, size, header)
        self._words = memoryview(self._map)[_WORDS_OFFSET:].cast("Q")

    def answered(self, latency_us: float) -> None:
        """Count a call that is about to be answered with success."""
        words = self._words
        words[_REQUESTS] += 1
        words[_TOTAL_US] += int(latency_us)
        words[_BUCKETS + bucket_index(latency_us)] += 1

    def failed(self, kind: ErrorKind) -> None:
        """Count a call that is about to be answered with an error."""
        self._words[_REQUESTS] += 1
        self._words[_ERRORS + _ERROR_KINDS.index(kind)] += 1

    def classified(self, index: int) -> None:
        """Count one item whose winning class has this index."""
        if 0 <= index < self._class_count:
            self._words[_CLASSES + index] += 1

    def close(self) -> None:
        """Mark the counts as final and let go of the file."""
        self._words[_CLOSED] = 1
        self._words.release()
        self._map.close()


def remove_unfinished(folder: Path) -> None:
    """Remove what a runtime that was killed had only begun to make; only while none lives.

    Raises:
        OSError: the disk refused.
    """
    for path in folder.glob("counters-*.new"):
        path.unlink(missing_ok=True)


def _mapped(path: Path, size: int, header: bytes) -> mmap.mmap:
    # Under another name until it is whole: a reader never meets a file without its label.
    partial = path.with_suffix(".new")
    try:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            os.pwrite(descriptor, header, 0)
            mapped = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        partial.rename(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CounterFileError(f"cannot make the counter file {path}: {error}") from error
    return mapped


def read(path: Path) -> Counts:
    """Return the counts of a file.

    Raises:
        CountersError: the file is gone, cut short, or not a counter file.
    """
    try:
        raw = path.read_bytes()
        magic, text_length = _HEADER.unpack_from(raw)
        if magic != _MAGIC:
            raise CountersError(f"{path} is not a counter file")
        stored = msgspec.json.decode(
            raw[_HEADER.size : _HEADER.size + text_length], type=_StoredLabel
        )
        words = memoryview(raw)[_WORDS_OFFSET:].cast("Q")
        total = _ERRORS + len(stored.error_kinds)
        first_class = total + 1 + _BUCKET_COUNT
        class_counts = words[first_class : first_class + len(stored.classes)].tolist()
        buckets = words[total + 1 : first_class].tolist()
        errors = dict(zip(stored.error_kinds, words[_ERRORS:total].tolist(), strict=True))
    except (
        OSError, struct.error, msgspec.DecodeError, IndexError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise CountersError(f"cannot read the counter file {path}: {error}") from error
    return Counts(
        label=CounterLabel(
            epoch=stored.epoch,
            family=stored.family,
            version=stored.version,
            variant=stored.variant,
            classes=stored.classes,
        ),
        closed=bool(words[_CLOSED]),
        requests=words[_REQUESTS],
        errors={kind: errors.get(kind, 0) for kind in _ERROR_KINDS},
        latency_us=Histogram(
            buckets={index: count for index, count in enumerate(buckets) if count},
            total=float(words[total]),
        ),
        classes=dict(zip(stored.classes, class_counts, strict=True)),
    )

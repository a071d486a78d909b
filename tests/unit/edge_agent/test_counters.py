"""Counter files: what the runtime counted is what control reads, whoever dies in between."""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.counters import (
    CounterFileError,
    CounterLabel,
    CountersError,
    CounterWriter,
    read,
)
from fleet_protocol.histogram import MAX_INDEX
from fleet_protocol.messages import ErrorKind

LABEL = CounterLabel(
    epoch="1-a", family="fashion_mnist", version="1.0.0", variant="int8", classes=["bag", "boot"]
)


def test_counts_read_back(tmp_path: Path) -> None:
    path = tmp_path / "counters-1-a-0.bin"
    writer = CounterWriter(path, LABEL)
    writer.answered(100.0)
    writer.answered(3000.5)
    writer.failed(ErrorKind.BACKEND)
    writer.classified(1)
    writer.classified(2)
    counts = read(path)
    assert counts.label == LABEL
    assert counts.requests == 3
    assert counts.errors == {ErrorKind.BAD_REQUEST: 0, ErrorKind.BACKEND: 1, ErrorKind.REFUSED: 0}
    assert counts.latency_us.count == 2
    assert counts.latency_us.total == 3100
    assert counts.classes == {"bag": 0, "boot": 1}
    assert not counts.closed
    writer.close()
    assert read(path).closed


def test_a_file_of_an_agent_that_knew_fewer_errors_is_read(tmp_path: Path) -> None:
    label = b'{"epoch":"1-a","family":"f","version":"1.0.0","variant":"v","classes":["a"]}'
    words = [1, 9, 2, 3, 700, *[0] * (MAX_INDEX + 1), 5]
    content = struct.pack("<8sQ", b"SKRYCNT1", len(label)) + label
    path = tmp_path / "counters-1-a-0.bin"
    path.write_bytes(content.ljust(128 * 1024, b"\0") + struct.pack(f"<{len(words)}Q", *words))
    counts = read(path)
    assert (counts.closed, counts.requests, counts.latency_us.total) == (True, 9, 700)
    assert counts.errors == {
        ErrorKind.BAD_REQUEST: 2,
        ErrorKind.BACKEND: 3,
        ErrorKind.REFUSED: 0,
    }
    assert counts.classes == {"a": 5}


def test_a_killed_writer_loses_no_count(tmp_path: Path) -> None:
    path = tmp_path / "counters-1-a-0.bin"
    program = (
        "import sys, pathlib\n"
        "from edge_agent.counters import CounterLabel, CounterWriter\n"
        "label = CounterLabel(epoch='1-a', family='f', version='1.0.0', variant='v')\n"
        "writer = CounterWriter(pathlib.Path(sys.argv[1]), label)\n"
        "for _ in range(1000): writer.answered(50.0)\n"
        "print('counted', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"counted\n"
        os.kill(process.pid, signal.SIGKILL)
    assert read(path).requests == 1000


def test_no_reader_meets_a_file_without_its_label(tmp_path: Path) -> None:
    CounterWriter(tmp_path / "counters-1-a-0.bin", LABEL).close()
    assert [path.name for path in tmp_path.iterdir()] == ["counters-1-a-0.bin"]


@pytest.mark.parametrize("content", [b"", b"SKRYCNT1", b"x" * 200_000, b"SKRYCNT1" + b"\xff" * 99])
def test_a_file_that_is_not_one_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "counters-x.bin"
    path.write_bytes(content)
    with pytest.raises(CountersError):
        read(path)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    label = CounterLabel(
        epoch="1-a", family="f", version="1.0.0", variant="v", classes=["x" * 200] * 1000
    )
    with pytest.raises(CountersError, match=r"labels of f 1\.0\.0"):
        CounterWriter(tmp_path / "c.bin", label)


def test_counts_may_stay_in_memory(tmp_path: Path) -> None:
    writer = CounterWriter(None, LABEL)
    writer.answered(100.0)
    writer.failed(ErrorKind.BACKEND)
    writer.classified(1)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_apart_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CounterFileError, match="No space left"):
        CounterWriter(tmp_path / "counters-1-a-0.bin", LABEL)
    assert list(tmp_path.iterdir()) == []

"""Which tool makes an update small: releases 2 and 3 of two networks, six tools, on one machine.

For each pair and tool: the bytes that travel, and what the device pays in CPU time and memory to
make the new file of them. What the tools give back is compared with the new file. CPU time is that
of the process alone, so other work on the machine changes it little. About five minutes; deltas are
kept in the cache with what making them took, so the next run takes one.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.environments import (
    PROJECT,
    REQUIREMENTS,
    cache_folder,
    digest,
    environment,
)
from benchmarks.models.bench_models import release_pairs
from benchmarks.report import Row, figure

_PROGRAM = Path(__file__).parent / "peers" / "programs" / "delta_tools.py"
OURS = "aligned differences"
COSTLIEST = "aligned differences in the smallest segments"
"""What a hostile server can make of the format: the most work for a file of that length."""
_TOOLS = (
    "zstd",
    "zstd with the old file",
    "content-defined chunks",
    "bsdiff4",
    "detools",
    OURS,
    COSTLIEST,
)
_LARGE_BYTES = 8 * 2**20
_PINS = "delta_tools"
_MAKERS = (
    _PROGRAM,
    REQUIREMENTS / f"{_PINS}.txt",
    PROJECT / "fleet_protocol" / "delta.py",
    PROJECT / "fleet_server" / "deltas" / "encoding.py",
)
"""What decides what a delta is, besides the two files."""
HOW = "make bench NAME=delta_methods ({tool}; {network} {change}, {file})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A file of release 2 and the same of a release 3."""

    network: str
    change: str
    base: Path
    new: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a tool took for a pair; applying in CPU time is the least of some turns."""

    delta_bytes: int
    making_cpu_s: float
    applying_cpu_s: float
    applying_peak_bytes: int


def run() -> list[Row]:
    """Run every tool on every pair."""
    todo = [(pair, tool) for pair in pairs() for tool in _TOOLS if _takes_part(tool, pair)]
    rows = []
    for number, (pair, tool) in enumerate(todo, 1):
        of_one = _rows(pair, tool, measured(pair, tool))
        print(f"{number}/{len(todo)} {of_one[0].name} {of_one[0].value}", flush=True)
        rows += of_one
    return rows


def _takes_part(tool: str, pair: Pair) -> bool:
    """Say whether a tool is measured on a pair.

    Those that sort all suffixes of the old file need half a minute and more for a large one.
    """
    large = pair.new.stat().st_size > _LARGE_BYTES
    if tool == COSTLIEST:
        return large
    if tool == "bsdiff4":
        return not large or pair.new.suffix == ".onnx"
    return tool != "detools" or not large


def _rows(pair: Pair, tool: str, cost: Cost) -> list[Row]:
    file = pair.new.name
    how = HOW.format(tool=tool, network=pair.network, change=pair.change, file=file)
    name = f"{pair.network} {pair.change} {file}: {tool}"
    ratio = cost.delta_bytes / pair.new.stat().st_size
    peak_mib = cost.applying_peak_bytes / 2**20
    return [
        figure(f"{name}: delta", round(ratio, 3), "of the file", how),
        figure(f"{name}: CPU on the device", round(cost.applying_cpu_s, 3), "s", how),
        figure(f"{name}: memory on the device", round(peak_mib, 1), "MiB", how),
        figure(f"{name}: CPU to make it", round(cost.making_cpu_s, 2), "s", how),
    ]


def pairs() -> list[Pair]:
    """Return what is compared: each file of each release 3 with that of release 2.

    Of the larger network whose last layer alone was trained, one file is enough.
    """
    every = [
        Pair(
            network=network.name,
            change=release.name.removeprefix("3-"),
            base=network / "2" / new.name,
            new=new,
        )
        for network in sorted(release_pairs().iterdir())
        if network.is_dir()
        for release in sorted(network.glob("3-*"))
        for new in sorted(release.iterdir())
    ]
    small = {pair.network for pair in every if pair.new.stat().st_size < 2**19}
    return [
        pair
        for pair in every
        if pair.network in small or pair.change != "last-layer" or pair.new.name == "int8.onnx"
    ]


def made_delta(tool: str, pair: Pair) -> tuple[Path, float]:
    """Return a tool's delta and the CPU time in seconds that making it took; both are kept.

    Raises:
        SystemExit: the tool failed.
    """
    inputs = (*_MAKERS, pair.base, pair.new)
    key = digest(tool.encode(), *(path.read_bytes() for path in inputs))
    delta = cache_folder() / "deltas" / f"{key}.delta"
    cost = delta.with_suffix(".json")
    if not cost.exists():
        delta.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="skerry-") as name:
            base, new = (_named_by_hash(path, Path(name)) for path in (pair.base, pair.new))
            taken = _run(tool, "make", base, new, delta)
        cost.write_text(json.dumps(taken))
    cpu_s: float = json.loads(cost.read_text())["cpu_s"]
    return delta, cpu_s


def measured(pair: Pair, tool: str) -> Cost:
    """Make one delta, unless it is kept, and apply it, each in a process of its own.

    Raises:
        SystemExit: the tool failed, or did not give the new file back.
    """
    delta, making_cpu_s = made_delta(tool, pair)
    with tempfile.TemporaryDirectory(prefix="skerry-") as name:
        folder = Path(name)
        base, new = (_named_by_hash(path, folder) for path in (pair.base, pair.new))
        made = folder / "made" / new.name
        made.parent.mkdir()
        made.with_suffix(".length").write_text(str(new.stat().st_size))
        applying = _run(tool, "apply", base, delta, made)
        if made.read_bytes() != new.read_bytes():
            raise SystemExit(f"{tool} did not give the new file back")
        return Cost(
            delta_bytes=delta.stat().st_size,
            making_cpu_s=making_cpu_s,
            applying_cpu_s=applying["cpu_s"],
            applying_peak_bytes=int(applying["peak_bytes"]),
        )


def _run(tool: str, verb: str, *paths: Path) -> dict[str, float]:
    python = sys.executable if tool in {OURS, COSTLIEST} else str(environment(_PINS))
    command = [python, str(_PROGRAM), tool, verb, *map(str, paths)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{tool} failed to {verb}: {done.stderr[-2000:]}")
    said: dict[str, float] = json.loads(done.stdout)
    return said


def _named_by_hash(path: Path, folder: Path) -> Path:
    """Copy a file to the name that a device gives it."""
    copied = folder / hashlib.sha256(path.read_bytes()).hexdigest()
    shutil.copy(path, copied)
    return copied

"""Which tool makes an update small: releases 2 and 3 of two networks, six tools, on one machine.

For each pair and tool: the bytes that travel, and what the device pays in CPU time and memory to
make the new file of them. What the tools give back is compared with the new file.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.environments import environment
from benchmarks.models.bench_models import release_pairs
from benchmarks.report import Row, figure

_PROGRAM = Path(__file__).parent / "peers" / "programs" / "delta_tools.py"
OURS = "aligned differences"
_TOOLS = (
    "zstd",
    "zstd with the old file",
    "content-defined chunks",
    "bsdiff4",
    "detools",
    OURS,
)
_SORTING = ("bsdiff4", "detools")
_SORTED_UP_TO_BYTES = 8 * 2**20
"""Tools that sort all suffixes of the old file take minutes for a larger one."""
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
    """What a tool took for a pair."""

    delta_bytes: int
    making_cpu_s: float
    applying_cpu_s: float
    applying_peak_bytes: int


def run() -> list[Row]:
    """Run every tool on every pair."""
    rows = []
    for pair in pairs():
        large = pair.new.stat().st_size > _SORTED_UP_TO_BYTES
        for tool in _TOOLS:
            if large and tool in _SORTING:
                continue
            cost = measured(pair, tool)
            file = pair.new.name
            how = HOW.format(tool=tool, network=pair.network, change=pair.change, file=file)
            name = f"{pair.network} {pair.change} {file}: {tool}"
            ratio = cost.delta_bytes / pair.new.stat().st_size
            peak_mib = cost.applying_peak_bytes / 2**20
            rows += [
                figure(f"{name}: delta", round(ratio, 3), "of the file", how),
                figure(f"{name}: CPU on the device", round(cost.applying_cpu_s, 3), "s", how),
                figure(f"{name}: memory on the device", round(peak_mib, 1), "MiB", how),
                figure(f"{name}: CPU to make it", round(cost.making_cpu_s, 2), "s", how),
            ]
            print(f"{name}: {ratio:.3f}", flush=True)
    return rows


def pairs() -> list[Pair]:
    """Return what is compared: each file of each release 3 with that of release 2."""
    return [
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


def measured(pair: Pair, tool: str) -> Cost:
    """Make and apply one delta, each in a process of its own.

    Raises:
        SystemExit: the tool failed, or did not give the new file back.
    """
    with tempfile.TemporaryDirectory(prefix="skerry-") as name:
        folder = Path(name)
        base, new = (_named_by_hash(path, folder) for path in (pair.base, pair.new))
        delta, made = folder / "delta", folder / "made" / new.name
        made.parent.mkdir()
        made.with_suffix(".length").write_text(str(new.stat().st_size))
        making = _run(tool, "make", base, new, delta)
        applying = _run(tool, "apply", base, delta, made)
        if made.read_bytes() != new.read_bytes():
            raise SystemExit(f"{tool} did not give the new file back")
        return Cost(
            delta_bytes=delta.stat().st_size,
            making_cpu_s=making["cpu_s"],
            applying_cpu_s=applying["cpu_s"],
            applying_peak_bytes=int(applying["peak_bytes"]),
        )


def _run(tool: str, verb: str, *paths: Path) -> dict[str, float]:
    python = sys.executable if tool == OURS else str(environment("delta_tools"))
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

"""What an update from release 2 to release 3 costs: bytes on the wire, and verification.

The releases are those of `delta_methods`, with signed metadata as a server has it. A process
with the device's own code takes release 3 while it holds release 2: once by delta, once without.
CPU time is that of the process alone. About three minutes.
"""

import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.delta_methods import OURS, Pair, made_delta, pairs
from benchmarks.measuring import release_folder
from benchmarks.measuring.release_folder import FAMILY, VERSION
from benchmarks.measuring.update_cost import Cost, Job
from benchmarks.report import Row, figure
from edge_agent.control.server_client import DELTAS_ROUTE
from fleet_protocol.manifest import MANIFEST_FILE
from fleet_protocol.names import target_path

_ROUNDS = 3
HOW = "make bench NAME=update_delivery ({what}; {pair}; server and network left out)"


def run() -> list[Row]:
    """Measure each pair of files."""
    rows = []
    every = pairs()
    for number, pair in enumerate(every, 1):
        name = f"{pair.network} {pair.change} {pair.new.name}"
        with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
            delta, full = _costs(pair, Path(folder))
        rows += _rows(name, delta, full)
        ratio = delta.model_bytes / full.model_bytes
        print(f"{number}/{len(every)} {name}: {ratio:.3f}", flush=True)
    return rows


def _costs(pair: Pair, folder: Path) -> tuple[Cost, Cost]:
    held, wanted = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (pair.base, pair.new))
    server = folder / "server"
    root = release_folder.write(server, pair.new)
    name = f"models/{FAMILY}/{VERSION}/{wanted}.{pair.new.name}"
    delta = server / f"{DELTAS_ROUTE}{held}/{name}".lstrip("/")
    delta.parent.mkdir(parents=True)
    shutil.copy(made_delta(OURS, pair)[0], delta)

    def cost(number: int, *, by_delta: bool) -> Cost:
        state = folder / f"{'delta' if by_delta else 'full'}-{number}"
        (state / "blobs").mkdir(parents=True)
        shutil.copy(pair.base, state / "blobs" / held)
        job = Job(
            state=str(state),
            files=str(server),
            root=root.decode(),
            manifest_path=target_path(FAMILY, VERSION, MANIFEST_FILE),
            base=held if by_delta else "",
        )
        return _run(job, state / "job.json")

    taken = [
        (cost(number, by_delta=True), cost(number, by_delta=False)) for number in range(_ROUNDS)
    ]
    return _median([one for one, _ in taken]), _median([other for _, other in taken])


def _run(job: Job, path: Path) -> Cost:
    path.write_bytes(msgspec.json.encode(job))
    command = [sys.executable, "-m", "benchmarks.measuring.update_cost", str(path)]
    done = subprocess.run(command, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=Cost)


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        metadata_cpu_s=statistics.median(one.metadata_cpu_s for one in costs),
        files_cpu_s=statistics.median(one.files_cpu_s for one in costs),
        peak_bytes=int(statistics.median(one.peak_bytes for one in costs)),
        model_bytes=costs[0].model_bytes,
    )


def _rows(pair: str, delta: Cost, full: Cost) -> list[Row]:
    how = HOW.format(what=f"median of {_ROUNDS}", pair=f"release 2 to 3, {pair}")
    ratio = delta.model_bytes / full.model_bytes
    rows = [
        figure(f"{pair}: full", full.model_bytes, "bytes", how),
        figure(f"{pair}: delta", delta.model_bytes, "bytes", how),
        figure(f"{pair}: ratio", round(ratio, 3), "of full", how),
    ]
    for name, cost in (("by delta", delta), ("in full", full)):
        metadata_ms, files_ms = cost.metadata_cpu_s * 1000, cost.files_cpu_s * 1000
        rows += [
            figure(f"{pair}: verification of metadata {name}", round(metadata_ms, 1), "ms", how),
            figure(f"{pair}: verification of files {name}", round(files_ms, 1), "ms", how),
            figure(f"{pair}: peak memory {name}", round(cost.peak_bytes / 2**20, 1), "MiB", how),
        ]
    return rows

"""What verifying one update costs a device; runs as a process of its own, for its memory.

The device's own code verifies the metadata, takes the files and checks them. The server is a
folder, so that the network's share is left out; what is asked of it is counted.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.peers.programs.peak_memory import PeakMemory
from edge_agent.control.clock import SystemClock
from edge_agent.control.download import BlobStore, Course
from edge_agent.control.install import read_manifest
from edge_agent.control.pace import Pace
from edge_agent.control.release_repository import ReleaseRepository
from edge_agent.control.server_client import ServerRefusedError
from fleet_protocol.names import target_path

_PIECE_BYTES = 16 * 1024


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One update.

    Attributes:
        state: folder of the device; its ``blobs/`` may hold ``base``.
        files: folder of the server: a file for each path.
        base: SHA-256 of the file of the release before; empty to fetch the whole file.
    """

    state: str
    files: str
    root: str
    manifest_path: str
    base: str


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What it took.

    Attributes:
        model_bytes: that came for the model file.
        peak_bytes: of the process's memory, above what it held before.
    """

    metadata_cpu_s: float
    files_cpu_s: float
    peak_bytes: int
    model_bytes: int


class _Body:
    status = 200

    def __init__(self, server: "FolderServer", path: Path) -> None:
        self._server = server
        self._path = path
        self.file_bytes = path.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                self._server.sent_bytes += len(piece)
                yield piece


class FolderServer:
    """The agent's `ReleaseServer` over a folder."""

    def __init__(self, folder: Path) -> None:
        self.sent_bytes = 0
        self._folder = folder

    @contextlib.contextmanager
    def open(
        self, path: str, _headers: Mapping[str, str], *, slowly: bool = False
    ) -> Iterator[_Body]:
        """Answer a request."""
        file = self._folder / path.lstrip("/")
        if slowly or not file.is_file():
            raise ServerRefusedError(f"there is no {path}", status=404)
        yield _Body(self, file)


def measure(job: Job) -> Cost:
    """Run one update up to its verified files."""
    state, server = Path(job.state), FolderServer(Path(job.files))
    (state / "blobs").mkdir(parents=True, exist_ok=True)
    course = Course(cancelled=lambda: False, base=job.base)
    blobs = BlobStore(folder=state / "blobs", server=server, pace=Pace(clock=SystemClock()))
    repository = ReleaseRepository(
        pinned_root=job.root.encode(), cache=state / "trust", server=server
    )
    memory = PeakMemory()
    began_s = time.process_time()
    snapshot = repository.refresh(datetime.now(UTC))
    target = snapshot.target(job.manifest_path)
    if target is None:
        raise SystemExit("the repository does not have the release")
    verified_s = time.process_time()
    manifest = read_manifest(
        blobs.fetch(
            job.manifest_path, length=target.length, sha256=target.hashes["sha256"], course=course
        )
    )
    sent_before = server.sent_bytes
    for variant in manifest.variants:
        path = target_path(manifest.family, manifest.version, variant.file)
        blobs.fetch(path, length=variant.length, sha256=variant.sha256, course=course)
    ended_s = time.process_time()
    return Cost(
        metadata_cpu_s=verified_s - began_s,
        files_cpu_s=ended_s - verified_s,
        peak_bytes=memory.grown_bytes(),
        model_bytes=server.sent_bytes - sent_before,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    chosen = msgspec.json.decode(parser.parse_args().job.read_bytes(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(measure(chosen)))

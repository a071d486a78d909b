"""How much resident memory a model takes: measured in a process of its own, which is all it runs.

As a program it reads a `Probe` from standard input and prints the growth in bytes. In the process
that packs, other libraries and earlier models would blur the figure.
"""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from edge_agent.errors import AgentError
from edge_agent.inference.backends import catalog
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import GoldenTensor
from model_pipeline.errors import PipelineError

_TIMEOUT_S = 300


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What to load, and what to run once so that working memory counts too."""

    path: str
    release: ActiveRelease
    inputs: list[GoldenTensor]


def measure(path: Path, release: ActiveRelease, inputs: list[GoldenTensor]) -> int:
    """Return by how many bytes loading a file and one call let a process grow.

    Raises:
        PipelineError: the file does not load, or the process died.
    """
    probe = msgspec.json.encode(Probe(path=str(path.absolute()), release=release, inputs=inputs))
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=probe,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PipelineError(f"cannot measure the memory that {path} takes: {error}") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise PipelineError(f"cannot measure the memory that {path} takes: {reason}")
    return int(done.stdout)


def _growth(probe: Probe) -> int:
    backend = catalog.installed(threads=1).backend_for(probe.release.format)
    backend.version()  # imports the library, which a device has loaded already
    before = _resident_bytes()
    model = backend.load(Path(probe.path), probe.release)
    model.run(
        [
            Tensor(name=given.name, datatype=given.datatype, shape=given.shape, data=given.data())
            for given in probe.inputs
        ]
    )
    return max(0, _resident_bytes() - before)


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _main() -> None:
    try:
        growth = _growth(msgspec.json.decode(sys.stdin.buffer.read(), type=Probe))
    except AgentError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{growth}\n")


if __name__ == "__main__":
    _main()

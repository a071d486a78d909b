"""Triton's load generator, as ``make test`` puts it beside the environment of the tests.

perf-analyzer's own wheels ask for glibc 2.38; a client of 2024 brought the program built for older
ones. It is linked to CUDA's runtime, of which it calls nothing where no GPU is asked for: a library
of these names, compiled here, does.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = Path(sys.prefix, "load_generator", "bin", "perf_analyzer")
_CUDA = "libcudart.so.12"
_FUNCTIONS = (
    "cudaFree",
    "cudaGetErrorName",
    "cudaGetErrorString",
    "cudaIpcGetMemHandle",
    "cudaMalloc",
    "cudaMemcpy",
    "cudaSetDevice",
)

installed = pytest.mark.skipif(
    not _PROGRAM.exists(), reason="make test installs the load generator, on x86-64 alone"
)


def load(folder: Path, *options: str) -> float:
    """Send 40 requests; return how many a second the generator counted.

    Args:
        folder: a new one, for files.
        options: of perf_analyzer, among them the address and the model.
    """
    _compile_cuda(folder)
    report = folder / "report.csv"
    ended = subprocess.run(
        [_PROGRAM, *options, "--request-count", "40", "-f", str(report)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    return float(row["Inferences/Second"])


def _compile_cuda(folder: Path) -> None:
    source = folder / "cuda.c"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in _FUNCTIONS))
    versions = folder / "cuda.map"
    versions.write_text(f"{_CUDA} {{ global: *; }};\n")
    named = f"-Wl,-soname,{_CUDA},--version-script={versions}"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", named, "-o", folder / _CUDA, source],  # noqa: S607 (the compiler of the path)
        check=True,
    )

"""Triton's load generator, where its package (perf-analyzer on PyPI) is installed.

Its wheels ask for glibc 2.38, so it is no dependency of the tests.
"""

import csv
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conformance.triton_http.conftest import Served

PROGRAM = shutil.which("perf_analyzer")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="perf_analyzer is not installed")


@pytest.mark.parametrize(
    "options",
    [
        ["-m", "fashion_mnist"],
        ["-m", "fashion_mnist", "-b", "8", "--concurrency-range", "4"],
        ["-m", "fashion_mnist", "--shared-memory", "system"],
        ["-m", "image", "--shared-memory", "system"],
        ["-m", "echo_bytes", "--string-length", "9"],
        ["-m", "fashion_mnist", "--input-data", "zero", "--input-tensor-format", "json"],
    ],
)
def test_it_runs(served: Served, tmp_path: Path, options: list[str]) -> None:
    report = tmp_path / "report.csv"
    count = ["--measurement-mode", "count_windows", "--measurement-request-count", "50"]
    # Whether the machine is quiet enough for a stable measurement is not the question here.
    steady = ["-s", "1000", "-r", "3", "-f", str(report)]
    assert PROGRAM is not None
    ended = subprocess.run(
        [PROGRAM, "-u", served.address, "-i", "http", *options, *count, *steady],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0

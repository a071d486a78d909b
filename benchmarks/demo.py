"""The figures of the whole path: what `skerry demo --check` measures."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Row, at_most, figure

HOW = "make bench NAME=demo (one run of skerry demo --check)"


def run() -> list[Row]:
    """Run the demo unattended and read its verdict."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        demo = subprocess.run(
            [sys.executable, "-m", "skerry", "demo", "--check", "--dir", str(Path(folder) / "d")],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    seconds = time.monotonic() - started
    verdict = json.loads(demo.stdout)
    requests, windows = verdict["requests"], verdict["telemetry_windows"]
    off_card = max(
        abs(value - verdict["card_accuracy"][release])
        for by_release in verdict["accuracy"].values()
        for release, value in by_release.items()
    )
    rows = [
        at_most("demo after the installation", round(seconds, 1), "s", 90, HOW),
        at_most("failed calls", requests["failed"], "calls", 0, HOW),
        at_most(
            "windows sent and not stored", windows["sent"] - windows["stored"], "windows", 0, HOW
        ),
        at_most("accuracy off the card, worst", round(100 * off_card, 3), "points", 0.5, HOW),
        figure("calls sent", requests["sent"], "calls", HOW),
        figure("calls counted in telemetry", requests["counted"], "calls", HOW),
        figure("latency seen by applications, p50", verdict["latency_ms"]["p50"], "ms", HOW),
        figure("latency seen by applications, p99", verdict["latency_ms"]["p99"], "ms", HOW),
    ]
    rows += [
        figure(f"stage {stage}", value, "s", HOW) for stage, value in verdict["seconds"].items()
    ]
    return rows

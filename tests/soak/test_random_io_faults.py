"""Thousands of updates while system calls fail at random: a device serves what was verified.

`make soak` runs the long campaign (``FAULTY_UPDATES=5000``); as part of all tests it is short.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulators import child_process

_UPDATES = int(os.environ.get("FAULTY_UPDATES", "3000" if "SOAK_S" in os.environ else "30"))

pytestmark = pytest.mark.timeout(0)


def test_no_device_stops_serving_and_none_loads_unverified_bytes(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    command = child_process.command("tests.faults.control.faulty_device", tmp_path, _UPDATES, seed)
    ended = subprocess.run(
        ["fiu-run", "-x", *command],  # noqa: S607 (Debian's)
        capture_output=True,
        text=True,
        check=False,
        cwd=child_process.ROOT,
    )
    assert ended.returncode == 0, f"seed {seed}: {ended.stderr[-3000:]}"
    counted = json.loads(ended.stdout.splitlines()[-1])
    sys.stdout.write(f"seed {seed}: {counted}\n")
    assert counted["updates"] == _UPDATES
    assert counted["failed_steps"] > 0
    assert counted["loads"] > 0
    assert counted["not_serving"] == 0
    assert counted["unverified"] == 0
    assert counted["leaks"] == 0

"""Thousands of updates while system calls fail at random: a device serves what was verified.

`make soak` runs the long campaign, ``FAULTY_UPDATES=3000`` unless told otherwise, and tells how far
it is; as part of all tests it is short. With ``FAULTY_LOG=FILE`` a campaign that was stopped goes
on where it was, and ``FAULTY_SEED`` repeats one that failed.
"""

import os
import random
import sys
from pathlib import Path

import pytest

from tests.soak.faulty_campaign import Campaign

_UPDATES = int(os.environ.get("FAULTY_UPDATES", "3000" if "SOAK_S" in os.environ else "30"))
_LOG = os.environ.get("FAULTY_LOG", "")
_SEED = int(os.environ.get("FAULTY_SEED", "1" if _LOG else "0"))

pytestmark = pytest.mark.timeout(0)


def test_no_device_stops_serving_and_none_loads_unverified_bytes(tmp_path: Path) -> None:
    campaign = Campaign(
        updates=_UPDATES,
        seed=_SEED or random.SystemRandom().randrange(1 << 30),
        log=Path(_LOG) if _LOG else tmp_path / "faults.jsonl",
        say=lambda line: sys.stdout.write(line + "\n") and sys.stdout.flush(),
    )
    campaign.run(workers=os.cpu_count() or 1)
    assert campaign.wrong == []
    assert campaign.total("updates") == _UPDATES
    assert campaign.total("failed_steps") > 0
    assert campaign.total("loads") > 0
    assert campaign.total("unverified") == 0

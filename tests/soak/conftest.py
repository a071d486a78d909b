"""A state directory of a test's own; and what takes too long for anything but `make soak`."""

import os
from pathlib import Path

import pytest

from edge_agent.state_dir import StateDir

_LONG = ["test_openapi_campaign.py", "test_rollout_campaign.py"]
collect_ignore = [] if "SOAK_S" in os.environ else _LONG


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """An empty state directory."""
    made = StateDir(tmp_path / "device")
    made.create()
    return made

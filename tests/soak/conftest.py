"""A state directory of a test's own."""

from pathlib import Path

import pytest

from edge_agent.state_dir import StateDir


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """An empty state directory."""
    made = StateDir(tmp_path / "device")
    made.create()
    return made

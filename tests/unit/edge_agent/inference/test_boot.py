"""``active.json`` as the runtime reads it."""

from pathlib import Path

import pytest

from edge_agent.inference.boot import ActiveSetError, read_active_set
from edge_agent.runtime_api import MAX_ACTIVE_SET_BYTES, ActiveSet
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.reference_release import commit, reference_release


def test_a_device_without_the_file_has_committed_to_nothing(tmp_path: Path) -> None:
    assert read_active_set(tmp_path / "active.json") == ActiveSet()


def test_what_was_committed_is_read(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    release = reference_release(state)
    commit(state, release)
    assert read_active_set(state.active_set).releases == [release]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no model is served until"),
        (b"[" * 100_000, "no model is served until"),
        (b'{"schema": 2}', "schema"),
        (b'{"releases": [{}]}', "missing required field"),
        (b'{"releases": "\xff"}', "no model is served until"),
        (b" " * (MAX_ACTIVE_SET_BYTES + 1), "larger than"),
    ],
)
def test_an_unusable_file_is_an_error_of_ours(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "active.json"
    path.write_bytes(content)
    with pytest.raises(ActiveSetError, match=complaint):
        read_active_set(path)


def test_an_unreadable_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ActiveSetError):
        read_active_set(tmp_path)

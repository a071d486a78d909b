"""Attacks by another user of the device, who was there first: folders, links and open modes."""

import os
import stat
from pathlib import Path

import pytest

from edge_agent.state_dir import StateDir, StateDirError

STRANGER = 12345
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of others")


@root_only
@pytest.mark.parametrize("name", ["", "blobs", "identity", "trust", "run"])
def test_a_folder_that_a_stranger_has_made_is_not_used(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o1777)  # as /tmp is
    folder = tmp_path / "d" / name
    folder.mkdir(parents=True)
    os.chown(folder, STRANGER, STRANGER)
    with pytest.raises(StateDirError, match=f"{folder} belongs to the user with the id {STRANGER}"):
        StateDir(tmp_path / "d").create()


@root_only
def test_a_link_that_a_stranger_has_made_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "d" / "blobs").symlink_to(tmp_path / "elsewhere")
    os.lchown(tmp_path / "d" / "blobs", STRANGER, STRANGER)
    with pytest.raises(StateDirError, match="belongs to"):
        StateDir(tmp_path / "d").create()


def test_what_was_open_to_all_is_closed_and_a_link_of_our_own_is_fine(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "d")
    state.root.mkdir()
    (tmp_path / "disk").mkdir()
    state.blobs.symlink_to(tmp_path / "disk")
    for folder in (state.root, state.identity, state.trust, state.run):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
    (tmp_path / "disk").chmod(0o777)
    state.create()
    modes = {folder.name: stat.S_IMODE(folder.stat().st_mode) for folder in (
        state.root, state.identity, state.trust, state.blobs, state.run,
    )}  # fmt: skip
    assert modes == {
        "d": 0o711, "identity": 0o700, "trust": 0o700, "blobs": 0o700, "run": 0o711,
    }  # fmt: skip


def test_an_owner_may_be_stricter(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "d")
    state.create()
    state.root.chmod(0o700)
    state.create()
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700

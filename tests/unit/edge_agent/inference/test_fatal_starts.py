"""What is remembered of starts that the runtime did not survive."""

import os
from pathlib import Path

import msgspec
import pytest

from edge_agent.inference.errors import LoadError
from edge_agent.inference.fatal_starts import DEATHS, FatalStarts, Notes, after_a_start
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.gated_backend import gated_release

A = gated_release(family="a")
B = gated_release(family="b")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path)
    state.create()
    state.blob(A.sha256).write_bytes(b"model")
    return state


@pytest.mark.parametrize(
    ("before", "deaths"),
    [
        (Notes(), {}),
        (Notes(loading="a"), {"a": 1}),
        (Notes(loading="a", deaths={"a": 1, "b": 3}), {"a": 2, "b": 3}),
        (Notes(deaths={"a": 1}), {"a": 1}),
        (Notes(loading="a", ends_s=5.0), {"a": DEATHS}),
        (Notes(loading="a", ends_s=15.0), {"a": 1}),
        (Notes(loading="x", deaths={str(n): 1 for n in range(256)}), None),
    ],
)
def test_a_note_that_is_still_there_is_a_death(
    before: Notes, deaths: dict[str, int] | None
) -> None:
    found = after_a_start(before, now_s=10.0)
    assert found.loading == ""
    if deaths is not None:
        assert found.deaths == deaths
    else:
        assert (len(found.deaths), found.deaths["x"]) == (256, 1)


def die(state: StateDir, release: ActiveRelease, *survived: ActiveRelease) -> None:
    """Boot, survive some loads, and leave what a death in the last one leaves."""
    life = FatalStarts(state)
    for one in survived:
        with life.loading(one):
            pass
    with life.loading(release):
        left = state.starts.read_bytes()
    state.starts.write_bytes(left)


def test_three_deaths_in_a_row_leave_a_release_out(state: StateDir) -> None:
    for _ in range(DEATHS):
        assert FatalStarts(state).refusal(A) == ""
        die(state, A, B)
    now = FatalStarts(state)
    assert "crashed the runtime in 3 starts in a row" in now.refusal(A)
    assert now.refusal(B) == ""
    with now.loading(A), now.loading(B):
        pass
    assert FatalStarts(state).refusal(A)  # it is not forgotten because others load


def test_a_load_that_ends_breaks_the_row_even_with_an_error(state: StateDir) -> None:
    for _ in range(DEATHS - 1):
        die(state, A)
    with pytest.raises(LoadError), FatalStarts(state).loading(A):
        raise LoadError("not a model")
    die(state, A)
    assert FatalStarts(state).refusal(A) == ""


def test_being_stopped_in_the_middle_is_no_death(state: StateDir) -> None:
    life = FatalStarts(state)
    with life.loading(A):
        life.interrupted()
        left = msgspec.json.decode(state.starts.read_bytes(), type=Notes)
    assert left == Notes()


def test_another_version_and_a_file_that_came_again_are_tried(state: StateDir) -> None:
    for _ in range(DEATHS):
        die(state, A)
    now = FatalStarts(state)
    assert now.refusal(A)
    assert now.refusal(gated_release("2.0.0", family="a")) == ""
    state.blob(A.sha256).unlink()
    state.blob(A.sha256).write_bytes(b"model")
    os.utime(state.blob(A.sha256), (1, 1))
    assert now.refusal(A) == ""


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"deaths": 3}'])
def test_notes_that_cannot_be_read_stop_nothing(state: StateDir, content: bytes) -> None:
    state.starts.write_bytes(content)
    assert FatalStarts(state).refusal(A) == ""


def test_a_disk_that_refuses_notes_stops_nothing(state: StateDir) -> None:
    state.starts.mkdir()
    with FatalStarts(state).loading(A):
        pass

"""The table of update states as a table."""

import itertools

import pytest

from fleet_protocol.errors import ProtocolError
from fleet_protocol.update_states import SETTLED, TRANSITIONS, UpdateState, check_transition

GOOD_PATH = ["idle", "downloading", "verified", "trial", "probation", "committed"]


def test_the_good_path_is_allowed() -> None:
    for current, following in itertools.pairwise(GOOD_PATH):
        check_transition(UpdateState(current), UpdateState(following))


@pytest.mark.parametrize(
    ("current", "following"),
    [
        pair
        for pair in itertools.product(UpdateState, UpdateState)
        if pair[1] not in TRANSITIONS[pair[0]]
    ],
)
def test_every_other_transition_is_refused(current: UpdateState, following: UpdateState) -> None:
    with pytest.raises(ProtocolError, match="cannot go"):
        check_transition(current, following)


def test_committed_is_reached_from_probation_only() -> None:
    before = {state for state, after in TRANSITIONS.items() if UpdateState.COMMITTED in after}
    assert before == {UpdateState.PROBATION}


def test_a_settled_state_leads_only_to_a_new_download() -> None:
    for state in SETTLED:
        assert TRANSITIONS[state] == {UpdateState.DOWNLOADING}

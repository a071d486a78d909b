"""The states of an update on a device and the transitions between them.

The path of a good update is idle, downloading, verified, trial, probation, committed. The table
is data so that the agent, the server and the tests share one truth.
"""

from enum import StrEnum

from fleet_protocol.errors import ProtocolError


class UpdateState(StrEnum):
    """Where a device stands with one family's update."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    TRIAL = "trial"
    PROBATION = "probation"
    COMMITTED = "committed"
    FAILED = "failed"
    """Refused before the switch: the previous release never stopped serving."""
    ROLLED_BACK = "rolled_back"
    """Taken back after the switch: the previous release serves again."""


_S = UpdateState

TRANSITIONS: dict[UpdateState, frozenset[UpdateState]] = {
    _S.IDLE: frozenset({_S.DOWNLOADING}),
    _S.DOWNLOADING: frozenset({_S.VERIFIED, _S.FAILED}),
    _S.VERIFIED: frozenset({_S.TRIAL, _S.FAILED}),
    # Back to the download: the verified file has been damaged on the device.
    _S.TRIAL: frozenset({_S.PROBATION, _S.FAILED, _S.DOWNLOADING}),
    _S.PROBATION: frozenset({_S.COMMITTED, _S.ROLLED_BACK}),
    _S.COMMITTED: frozenset({_S.DOWNLOADING}),
    _S.FAILED: frozenset({_S.DOWNLOADING}),
    _S.ROLLED_BACK: frozenset({_S.DOWNLOADING}),
}

SETTLED = frozenset({_S.IDLE, _S.COMMITTED, _S.FAILED, _S.ROLLED_BACK})
"""States in which nothing is under way."""


def check_transition(current: UpdateState, following: UpdateState) -> None:
    """Accept a transition of the table.

    Raises:
        ProtocolError: the table does not have it.
    """
    if following not in TRANSITIONS[current]:
        raise ProtocolError(f"an update cannot go from {current} to {following}")

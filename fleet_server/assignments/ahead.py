"""Devices that hold newer numbers than the database: it was restored from a backup. Pure.

The signer remembers what it signed, but its memory may come from the same backup. The device does
not forget, so what it reports counts as well: its next assignment goes above the one that it
accepted, its next command above the one that it took. What a device can say about itself is
bounded, so that a broken one uses up neither its numbers nor the signer's patience.
"""

import msgspec

MAX_AHEAD = 5_000
"""Less than the signer allows in one step, and more than a device gets in a year."""


class _Reported(msgspec.Struct):
    assignment_version: int = 0
    command_sequence: int = 0


def held(reported: str | None) -> int:
    """Return the version that a device says it accepted; 0 if it has not said one."""
    return _read(reported).assignment_version


def is_ahead(stored: int, reported: str | None) -> bool:
    """Say whether a device holds a believable version above the stored one."""
    return _believable(stored, held(reported))


def next_version(stored: int, reported: str | None) -> int:
    """Return the version of a device's next assignment."""
    return _following(stored, held(reported))


def next_sequence(stored: int, reported: str | None) -> int:
    """Return the sequence of a device's next command."""
    return _following(stored, _read(reported).command_sequence)


def _following(stored: int, said: int) -> int:
    return (said if _believable(stored, said) else stored) + 1


def _believable(stored: int, said: int) -> bool:
    return 0 < said - stored <= MAX_AHEAD


def _read(reported: str | None) -> _Reported:
    try:
        return msgspec.json.decode(reported or "{}", type=_Reported)
    except msgspec.MsgspecError:
        return _Reported()  # stored by a version that spoke another schema

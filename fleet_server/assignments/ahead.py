"""Devices that hold a newer assignment than the database: it was restored from a backup. Pure.

The signer remembers what it signed, but its memory may come from the same backup. The device does
not forget, so what it reports counts as well: the next assignment goes above it. What a device can
say about itself is bounded, so that a broken one uses up neither its numbers nor the signer's
patience.
"""

import msgspec

MAX_AHEAD = 5_000
"""Less than the signer allows in one step, and more than a device gets in a year."""


class _Reported(msgspec.Struct):
    assignment_version: int = 0


def held(reported: str | None) -> int:
    """Return the version that a device says it accepted; 0 if it has not said one."""
    try:
        return msgspec.json.decode(reported or "{}", type=_Reported).assignment_version
    except msgspec.MsgspecError:
        return 0  # stored by a version that spoke another schema


def is_ahead(stored: int, reported: str | None) -> bool:
    """Say whether a device holds a believable version above the stored one."""
    return 0 < held(reported) - stored <= MAX_AHEAD


def next_version(stored: int, reported: str | None) -> int:
    """Return the version of a device's next assignment."""
    return (held(reported) if is_ahead(stored, reported) else stored) + 1

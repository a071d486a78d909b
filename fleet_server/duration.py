"""Times as people give them to commands: a number and its unit."""

import re
from datetime import timedelta

from fleet_server.errors import RefusedError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str, *, option: str) -> timedelta:
    """Return what a text such as ``90s``, ``15m``, ``12h`` or ``30d`` means.

    Args:
        text: what was given.
        option: for which option, in the message.

    Raises:
        RefusedError: it is no such text.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        raise RefusedError(
            f"{option} {text[:40]!r} is no time: use a number and s, m, h or d, such as 12h"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})

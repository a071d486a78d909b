"""Follows one rollout until it rests: what is new each time, through servers that restart.

It owns neither the connection nor the words: it asks again and again, and says what was answered.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fleet_server.operator_client import ApiError

RESTS = {"completed": 0, "stopped": 3, "rolled_back": 4, "aborted": 5, "paused": 6}
"""The statuses in which nothing follows by itself, and the exit status that each of them means."""

_POLL_S = 2.0
_MOST_S = 30.0
_SERVER_ERROR = 500

View = Mapping[str, Any]


def follow(
    ask: Callable[[], View],
    *,
    patience_s: float,
    troubled: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[View]:
    """Yield a rollout each time that there is news of it; the last one is at rest.

    Args:
        ask: how it stands now.
        patience_s: how long a server that has answered once may be away.
        troubled: is told once when the server is away, and why.
        sleep: waits for some seconds.
        monotonic: seconds from any beginning.

    Raises:
        ApiError: the server refuses, has never answered, or was away for longer than that.
    """
    said: tuple[object, ...] = ()
    heard_s: float | None = None
    pause_s = _POLL_S
    while True:
        try:
            view = ask()
        except ApiError as error:
            if heard_s is None or not _may_pass(error) or monotonic() - heard_s >= patience_s:
                raise
            if pause_s == _POLL_S:
                troubled(str(error))
            pause_s = min(2 * pause_s, _MOST_S)
        else:
            heard_s, pause_s = monotonic(), _POLL_S
            news = (view["status"], view["explanation"])
            if news != said:
                said = news
                yield view
            if view["status"] in RESTS:
                return
        sleep(pause_s)


def _may_pass(error: ApiError) -> bool:
    """Say whether the server is away or overloaded, rather than of another opinion."""
    return error.status is None or error.status >= _SERVER_ERROR

"""From what an operator asks for to the terms of delivery that are signed."""

from datetime import datetime
from typing import get_args

import msgspec

from fleet_protocol.delivery import ANY_TIME, Terms
from fleet_protocol.unreadable import problem
from fleet_server.assignments.schemas import DeliveryBody, Weekday, WindowBody
from fleet_server.errors import RefusedError

_WEEKDAYS = get_args(Weekday)


def terms_of(body: DeliveryBody | None) -> Terms:
    """Return the terms.

    Raises:
        RefusedError: they contradict each other or lie out of bounds.
    """
    if body is None:
        return ANY_TIME
    try:
        return msgspec.convert(
            {
                "download_not_before_ms": _ms(body.download_not_before),
                "activate_not_before_ms": _ms(body.activate_not_before),
                "window": _window(body.window),
                "download_in_window": body.download_in_window,
                "max_bytes_per_s": body.max_bytes_per_s,
            },
            Terms,
        )
    except msgspec.ValidationError as error:
        raise RefusedError(
            f"these terms of delivery cannot be signed: {problem(error, Terms)}"
        ) from error


def _ms(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp() * 1000)


def _window(body: WindowBody | None) -> dict[str, object] | None:
    if body is None:
        return None
    hour, _, minute = body.start.partition(":")
    return {
        "weekdays": sorted({_WEEKDAYS.index(day) for day in body.weekdays}),
        "start_minute": 60 * int(hour) + int(minute),
        "duration_minutes": body.duration_minutes,
    }

"""The delivery terms of an assigned release: when and how fast a device may fetch and start it.

They are signed with the assignment, one for each family that has any, and obeyed by the device on
its trusted clock. All times are UTC; every number is an integer, as TUF's canonical JSON asks for.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from fleet_protocol.errors import ProtocolError
from fleet_protocol.names import Family
from fleet_protocol.unreadable import problem

FIELD = "x-skerry-delivery"
"""Name of the extra field in the signed part of an assignment."""

DAY_MINUTES = 24 * 60
WEEK_DAYS = 7
_NEVER_CLOSED_MINUTES = WEEK_DAYS * DAY_MINUTES

MomentMs = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_000)]
"""Milliseconds since 1970, up to the end of the year 9999."""


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time of maintenance that comes again every day or on some days of the week.

    Attributes:
        weekdays: days on which it opens, Monday is 0; none named means every day.
        start_minute: when it opens, in minutes after midnight UTC.
        duration_minutes: how long it stays open, up to a week.
    """

    weekdays: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, lt=WEEK_DAYS)], ...],
        msgspec.Meta(max_length=WEEK_DAYS),
    ] = ()
    start_minute: Annotated[int, msgspec.Meta(ge=0, lt=DAY_MINUTES)]
    duration_minutes: Annotated[int, msgspec.Meta(ge=1, le=_NEVER_CLOSED_MINUTES)]

    def is_open(self, now: datetime) -> bool:
        """Say whether a moment lies in it."""
        length = timedelta(minutes=self.duration_minutes)
        return any(start <= now < start + length for start in self._starts(now, range(-7, 1)))

    def opens(self, now: datetime) -> datetime:
        """Return when it opens for the first time after a moment."""
        return next(start for start in self._starts(now, range(WEEK_DAYS + 1)) if start > now)

    def _starts(self, now: datetime, days: range) -> list[datetime]:
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        dates = [midnight + timedelta(days=day) for day in days]
        return [
            date + timedelta(minutes=self.start_minute)
            for date in dates
            if not self.weekdays or date.weekday() in self.weekdays
        ]


class Terms(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """When and how fast one release may come; the default is now and as fast as it goes.

    Attributes:
        download_not_before_ms: no file of the release is fetched before.
        activate_not_before_ms: the release is neither tried nor switched to before.
        window: it is tried and switched to only while this is open. What began in it is finished:
            a probation goes on after it, and going back is always allowed.
        download_in_window: files, too, come only while the window is open. A download that is under
            way when it closes stops, and goes on from there when it opens again.
        max_bytes_per_s: the most that the device takes from the network for it; None is no limit.
    """

    download_not_before_ms: MomentMs = 0
    activate_not_before_ms: MomentMs = 0
    window: Window | None = None
    download_in_window: bool = False
    max_bytes_per_s: Annotated[int, msgspec.Meta(ge=1024, le=2**40)] | None = None

    def __post_init__(self) -> None:
        """Refuse an order that means nothing."""
        if self.download_in_window and self.window is None:
            raise ValueError("`download_in_window` without a `window`")


ANY_TIME = Terms()


def terms_of(extra_fields: Mapping[str, object], *, families: Collection[str]) -> dict[str, Terms]:
    """Read the terms of each family from the unrecognized fields of a signed assignment.

    Raises:
        ProtocolError: they are malformed, or name a family that is not assigned.
    """
    try:
        stated = msgspec.convert(extra_fields.get(FIELD, {}), dict[Family, Terms])
    except msgspec.ValidationError as error:
        raise ProtocolError(
            f"not an assignment: {FIELD}: {problem(error, dict[Family, Terms])}"
        ) from error
    check_families(stated, families)
    return {family: stated.get(family, ANY_TIME) for family in families}


def extra_fields(terms: Mapping[str, Terms]) -> dict[str, object]:
    """Return the unrecognized fields to sign; none if all may come at any time."""
    stated = {family: one for family, one in sorted(terms.items()) if one != ANY_TIME}
    return {FIELD: msgspec.to_builtins(stated)} if stated else {}


def check_families(terms: Mapping[str, Terms], families: Collection[str]) -> None:
    """Accept terms that are all for assigned families.

    Raises:
        ProtocolError: one is for another.
    """
    strays = sorted(terms.keys() - set(families))
    if strays:
        raise ProtocolError(f"terms of delivery for {strays[0]}, which is not assigned")

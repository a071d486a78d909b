"""Terms of delivery: windows in time, and what may be signed."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from fleet_protocol import delivery
from fleet_protocol.delivery import ANY_TIME, Terms, Window
from fleet_protocol.errors import ProtocolError

NIGHTLY = Window(start_minute=2 * 60, duration_minutes=90)
OVER_MIDNIGHT = Window(start_minute=23 * 60, duration_minutes=120)
WEEKEND = Window(weekdays=(4,), start_minute=22 * 60, duration_minutes=2 * 24 * 60)
ALWAYS = Window(weekdays=(0,), start_minute=0, duration_minutes=7 * 24 * 60)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# 2026-11-20 is a Friday.
@pytest.mark.parametrize(
    ("window", "moment", "is_open", "opens"),
    [
        (NIGHTLY, "2026-11-20T01:59:59", False, "2026-11-20T02:00"),
        (NIGHTLY, "2026-11-20T02:00", True, "2026-11-21T02:00"),
        (NIGHTLY, "2026-11-20T03:29:59", True, "2026-11-21T02:00"),
        (NIGHTLY, "2026-11-20T03:30", False, "2026-11-21T02:00"),
        (OVER_MIDNIGHT, "2026-11-21T00:59", True, "2026-11-21T23:00"),
        (OVER_MIDNIGHT, "2026-11-21T01:00", False, "2026-11-21T23:00"),
        (WEEKEND, "2026-11-19T22:30", False, "2026-11-20T22:00"),
        (WEEKEND, "2026-11-22T21:59", True, "2026-11-27T22:00"),
        (WEEKEND, "2026-11-22T22:00", False, "2026-11-27T22:00"),
        (ALWAYS, "2026-11-22T23:59", True, "2026-11-23T00:00"),
        (ALWAYS, "2026-11-23T00:00", True, "2026-11-30T00:00"),
    ],
)
def test_a_window_comes_again(window: Window, moment: str, *, is_open: bool, opens: str) -> None:
    elsewhere = at(moment).astimezone(timezone(timedelta(hours=-9)))
    for now in (at(moment), elsewhere):
        assert window.is_open(now) is is_open
        assert window.opens(now) == at(opens)


def test_terms_read_back_and_only_those_that_say_something_are_signed() -> None:
    stated = Terms(window=WEEKEND, download_in_window=True, max_bytes_per_s=2048)
    fields = delivery.extra_fields({"animals": stated, "plants": ANY_TIME})
    read = delivery.terms_of(
        msgspec.json.decode(msgspec.json.encode(fields)), families={"animals", "plants", "stars"}
    )
    assert read == {"animals": stated, "plants": ANY_TIME, "stars": ANY_TIME}
    assert delivery.extra_fields({"plants": ANY_TIME}) == {}


@pytest.mark.parametrize(
    "stated",
    [
        "now",
        {"stones": {}},
        {"animals": {"download_not_before_ms": -1}},
        {"animals": {"activate_not_before_ms": 2**60}},
        {"animals": {"max_bytes_per_s": 10}},
        {"animals": {"download_in_window": True}},
        {"animals": {"hurry": True}},
        {"animals": {"window": {"start_minute": 1440, "duration_minutes": 1}}},
        {"animals": {"window": {"start_minute": 0, "duration_minutes": 0}}},
        {"animals": {"window": {"start_minute": 0, "duration_minutes": 10081}}},
        {"animals": {"window": {"start_minute": 0, "duration_minutes": 9, "weekdays": [7]}}},
        {"animals": {"window": {"start_minute": 0.5, "duration_minutes": 1}}},
    ],
)
def test_malformed_terms_are_refused(stated: object) -> None:
    with pytest.raises(ProtocolError, match="deliver"):
        delivery.terms_of({delivery.FIELD: stated}, families={"animals"})

"""Pages of the API: the next one starts after the last key of this one, however much was added.

A cursor is opaque to clients: what is inside may change without a new API. It has a type of its
own, so that no list can hand out a bare key, which it would not take back.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, NewType, TypeVar

from fastapi import Depends, Query

from fleet_server.errors import MalformedError
from fleet_server.keyset import Order

MAX_PAGE = 500
_MAX_CURSOR = 400
_MAX_KEY = 2**63 - 1
_Row = TypeVar("_Row")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="how many items at most")]
InOrder = Annotated[
    Order, Query(description="`asc`: the oldest first; `desc`: the newest first, backwards in time")
]

Cursor = NewType("Cursor", str)
"""Says where the next page starts."""


def cursor(key: str | int) -> Cursor:
    """Return the cursor of the page that starts after a key."""
    return Cursor(urlsafe_b64encode(str(key).encode()).rstrip(b"=").decode())


def following(rows: Sequence[_Row], limit: int, key: Callable[[_Row], str | int]) -> Cursor | None:
    """Return the cursor after a page; None if the page is not full, so that nothing follows."""
    return cursor(key(rows[-1])) if len(rows) == limit else None


def key_of(cursor_text: str) -> str:
    """Return the key in a cursor.

    Raises:
        MalformedError: it is none of ours.
    """
    try:
        padded = cursor_text + "=" * (-len(cursor_text) % 4)
        key = urlsafe_b64decode(padded.encode("ascii")).decode()
    except (binascii.Error, UnicodeError) as error:
        raise _refusal() from error
    if not key.isprintable() or cursor(key) != cursor_text:
        raise _refusal()
    return key


def _after_name(
    after: Annotated[
        str | None, Query(max_length=_MAX_CURSOR, description="`next_after` of the page before")
    ] = None,
) -> str | None:
    return None if after is None else key_of(after)


def _after_id(after: Annotated[str | None, Depends(_after_name)]) -> int | None:
    if after is None:
        return None
    if not after.isdecimal() or not after.isascii() or int(after) > _MAX_KEY:
        raise _refusal()
    return int(after)


AfterName = Annotated[str | None, Depends(_after_name)]
AfterId = Annotated[int | None, Depends(_after_id)]


def _refusal() -> MalformedError:
    return MalformedError(
        "after: not a cursor; give `next_after` of the page before, or leave it out"
    )

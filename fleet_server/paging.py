"""Keyset pages: the next page starts after the last key of this one, however much was added.

A cursor is opaque to clients: what is inside may change without a new API.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

from fastapi import Depends, Query

from fleet_server.errors import MalformedError

MAX_PAGE = 500
_MAX_CURSOR = 400
_MAX_KEY = 2**63 - 1

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="how many items at most")]


def cursor(key: str | int) -> str:
    """Return the cursor of the page that starts after a key."""
    return urlsafe_b64encode(str(key).encode()).rstrip(b"=").decode()


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

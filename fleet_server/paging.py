"""Keyset pages: the next page starts after the last key of this one, however much was added."""

from typing import Annotated

from fastapi import Query

MAX_PAGE = 500

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="how many items at most")]
AfterId = Annotated[
    int | None, Query(ge=0, le=2**63 - 1, description="`next_after` of the page before")
]
AfterName = Annotated[
    str | None, Query(max_length=200, description="`next_after` of the page before")
]

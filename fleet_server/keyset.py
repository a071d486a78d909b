"""Keyset pages in SQL: which rows a page has, either way through a list.

The cursors that callers see are the business of `paging`.
"""

from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

MAX_COUNTED = 10_000
"""Where counting ends: what is beyond changes nothing for who asked."""

_Query = TypeVar("_Query", bound=Select[*tuple[Any, ...]])
_Key = TypeVar("_Key", int, str)


class Order(StrEnum):
    """Which way through a list."""

    ASCENDING = "asc"
    DESCENDING = "desc"


def page(
    query: _Query,
    key: InstrumentedAttribute[_Key],
    *,
    after: _Key | None,
    limit: int,
    order: Order = Order.ASCENDING,
) -> _Query:
    """Narrow a query to one page.

    Args:
        query: for the whole list, without an order.
        key: what the list is ordered by; each row has another one.
        after: the key of the last row of the page before; None for the first page.
        limit: rows at most.
        order: of the keys; with the descending one a page goes on below ``after``.
    """
    upwards = order is Order.ASCENDING
    if after is not None:
        query = query.where(key > after if upwards else key < after)
    return query.order_by(key.asc() if upwards else key.desc()).limit(limit)


async def count(session: AsyncSession, query: Select[int], *, most: int) -> int:
    """Return how many rows a query has, ``most`` at the most; it looks at no more of them."""
    rows = query.limit(most).subquery()
    return await session.scalar(select(func.count()).select_from(rows)) or 0

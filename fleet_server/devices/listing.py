"""Finds the devices of a list, reading a bounded number of them for each answer.

1. Where a source without an order (`fleet_server.devices.sources`) gives few, all are looked at.
2. Otherwise what the ordered ones have in common (`fleet_server.devices.walk`) is read from the
   place on where the last answer ended, more of it each time, until the page is full. When that
   takes long, the answer is what was found by then, and how far it looked: conditions that are
   common each and rare together take several answers, none of which takes longer than another.
3. If what devices lack, or a part of their ids, held for few of the first that were looked at, its
   own sources are asked for (`fleet_server.devices.narrowing`), and read instead.
4. A part of an id that has none is in few ids, perhaps: the index over parts of ids is given as
   long to say so.

Which way is quicker is decided here from counts, not by a database from its statistics: it would
often be wrong, as these know nothing of an attribute that lies together in the order of ids.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import Select, func, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.devices import narrowing, sources
from fleet_server.devices.sources import Condition, Source, Span, Wanted
from fleet_server.devices.walk import Walk, Window, fits

BUDGET_S = 0.02
"""After so long an answer is what was found so far."""

_FEW = 3000
"""Of so many devices each is looked at, if that is to ask one thing of them."""
_AT_FIRST = 1000
_GROWTH = 4
_RARE = 10
"""Other sources are asked for where so many windows would have to be read for a page."""
_SPARSE = 4
"""One in so many devices may be in a source that is read instead of another."""
_PARTS_S = 0.025
"""So long the index over parts of ids is waited for."""
_MAX_COMMON = 1000
_COMMON_S = 600.0
_CANCELLED = "57014"
"""What PostgreSQL calls the end of a statement that took too long."""

_BOUNDED = select(
    func.set_config("statement_timeout", f"{_PARTS_S * 1000:.0f}", literal(value=True))
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        searched_to: the id up to which was looked; None if that was the end, or the page is full.
    """

    ids: list[str]
    searched_to: str | None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many there are.

    Attributes:
        is_capped: there may be more.
    """

    number: int
    is_capped: bool


class CommonParts:
    """The texts that lately were in too many ids for the index over their parts."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """Know of none yet."""
        self._monotonic = monotonic
        self._until: dict[str, float] = {}

    def __contains__(self, text: str) -> bool:
        """Say whether a text is one of them."""
        until = self._until.get(text)
        return until is not None and self._monotonic() < until

    def add(self, text: str) -> None:
        """Remember one for a while, and forget the oldest of many."""
        self._until.pop(text, None)
        self._until[text] = self._monotonic() + _COMMON_S
        if len(self._until) > _MAX_COMMON:
            del self._until[next(iter(self._until))]


class Listing:
    """One list, as one session reads it."""

    def __init__(
        self,
        session: AsyncSession,
        wanted: Wanted,
        *,
        common: CommonParts | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            session: for reading.
            wanted: what holds for the devices.
            common: what to know of the index over parts of ids; None if there is none.
            monotonic: says how long it takes.
        """
        self._session = session
        self._wanted = wanted
        self._common = common
        is_of_use = common is not None and wanted.search not in common
        self._with_part = sources.with_part(wanted) if is_of_use else None
        self._monotonic = monotonic

    async def page(self, *, after: str, limit: int) -> Found:
        """Return the next ids."""
        until = self._monotonic() + BUDGET_S
        found = await self._sources()
        small = await self._small(found, Span(after))
        if small is not None:
            return Found(await self._ids(small, limit), None)
        ids: list[str] = []

        async def take(window: Window) -> bool:
            ids.extend(await self._ids(window, limit - len(ids)))
            return len(ids) == limit

        size = self._size_of_page(found, limit)
        if self._with_part is not None or narrowing.applies(self._wanted):
            # Most of such conditions hold for nearly all, or nearly none.
            size = size if self._wanted.search else min(size, limit * _GROWTH)
            end = await self._walk(found).run(after, size, take, until=self._monotonic())
            if end is None:
                return Found(ids, None)
            looked, after, narrow = Span(after, end=end), end, []
            if len(ids) * _RARE < limit:
                narrow = await self._narrow(looked, size)
                found += narrow
                size = self._size_of_page(found, limit)
                if self._with_part is not None and self._is_asked(found, self._wanted.search):
                    read = partial(self._rare, self._with_part, Span(end), limit - len(ids))
                    rare = await self._in_time(read)
                    if rare is not None:
                        return Found([*ids, *rare], None)
            if not narrow and self._monotonic() >= until:
                return Found(ids, after)
        return Found(ids, await self._walk(found).run(after, size, take, until=until))

    async def count(self, limit: int) -> Counted:
        """Count the devices, up to a limit."""
        until = self._monotonic() + BUDGET_S
        found = await self._sources()
        if len(self._wanted.conditions) == 1:
            found += await narrowing.of(self._session, self._wanted)
        known = [*found, sources.everything(self._wanted)]
        whole = next((each for each in known if self._is_answer(each)), None)
        if whole is not None:
            number = await self._session.scalar(self._size(whole, limit)) or 0
            return Counted(number, is_capped=number == limit)
        small = await self._small(found, Span(""))
        if small is not None:
            number = await self._number(small, limit)
            return Counted(number, is_capped=number == limit)
        if self._with_part is not None and self._is_asked(found, self._wanted.search):
            count_rare = partial(self._number_of_rare, self._with_part, limit)
            rare = await self._in_time(count_rare)
            if rare is not None:
                return Counted(rare, is_capped=rare == limit)
        return await self._number_of_walked(found, limit, until)

    async def _number_of_walked(self, found: list[Source], limit: int, until: float) -> Counted:
        number = 0

        async def take(window: Window) -> bool:
            nonlocal number
            number += await self._number(window, limit - number)
            return number == limit

        size, began = self._at_first(found), self._monotonic()
        end = await self._walk(found).run("", size, take, until=began)
        took_s = self._monotonic() - began
        narrow = []
        if end is not None and number * _RARE < size and len(self._wanted.conditions) > 1:
            narrow = await self._narrow(Span("", end=end), size)
        if end is not None and (narrow or fits(until - self._monotonic(), took_s=took_s)):
            found += narrow
            end = await self._walk(found).run(end, self._at_first(found), take, until=until)
        return Counted(number, is_capped=end is not None or number == limit)

    async def _sources(self) -> list[Source]:
        return await sources.of(self._session, self._wanted)

    async def _narrow(self, span: Span, size: int) -> list[Source]:
        """Return the further sources that have few of the ids of a span.

        Args:
            span: its ids were looked at.
            size: how many these are, about.
        """
        found = await narrowing.of(self._session, self._wanted)
        if not found or len(self._wanted.conditions) == 1:  # of which the span showed few
            return found
        few = max(1, size // _SPARSE)
        sizes = [each.size(span, few).label(f"n{at}") for at, each in enumerate(found)]
        row = (await self._session.execute(select(*sizes))).one()
        return [each for each, number in zip(found, row, strict=True) if number < few]

    def _walk(self, found: Sequence[Source]) -> Walk:
        return Walk(self._session, self._wanted, self._ordered(found), monotonic=self._monotonic)

    def _ordered(self, found: Sequence[Source]) -> list[Source]:
        ordered = [each for each in found if each.is_ordered]
        return ordered or [sources.everything(self._wanted)]

    async def _small(self, found: Sequence[Source], span: Span) -> Window | None:
        """Return all ids of a source that has no order, if one has few."""
        some = [each for each in found if not each.is_ordered]
        if not some:
            return None
        sizes = [each.size(span, self._few(each)).label(f"n{at}") for at, each in enumerate(some)]
        row = (await self._session.execute(select(*sizes))).one()
        few = [(number, at) for at, number in enumerate(row) if number < self._few(some[at])]
        if not few:
            return None
        source = some[min(few)[1]]
        return self._window(source, span, self._few(source))

    async def _in_time(self, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """Return what the index over parts of ids says, or None if it says too much or too late."""
        bounded = await self._session.begin_nested()
        answer = None
        try:
            await self._session.execute(_BOUNDED)
            answer = await ask()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _CANCELLED:
                raise
        finally:
            await bounded.rollback()  # which restores the time that was allowed
        if answer is None and self._common is not None:
            self._common.add(self._wanted.search)
        return answer

    async def _rare(self, source: Source, span: Span, limit: int) -> list[str] | None:
        few = self._few(source)
        ids = source.first(span, few)
        counted = select(ids.c.device_id, func.count().over().label("number")).subquery()
        found = Window(self._wanted, counted, self._asked(source)).matching()
        query = found.add_columns(counted.c.number).order_by(counted.c.device_id).limit(limit)
        rows = (await self._session.execute(query)).all()
        number = rows[0].number if rows else 0
        if not rows and self._asked(source):
            number = await self._session.scalar(select(source.size(span, few)))
        return None if number == few else [row.device_id for row in rows]

    async def _number_of_rare(self, source: Source, limit: int) -> int | None:
        every = Span("")
        if not self._asked(source):
            return await self._session.scalar(select(source.size(every, limit)))
        few = self._few(source)
        if await self._session.scalar(select(source.size(every, few))) == few:
            return None
        return await self._number(self._window(source, every, few), limit)

    def _few(self, source: Source) -> int:
        """Return of how many each is looked at: of more, if nothing else is asked of them."""
        if not self._asked(source):
            return _FEW * _GROWTH
        return max(1, _FEW // max(1, self._look_ups(source)))

    def _at_first(self, found: Sequence[Source]) -> int:
        """Return how many to look at first: many, if only their ids are compared."""
        ordered = self._ordered(found)
        look_ups = self._look_ups(ordered[0])
        if len(ordered) > 1:
            # A statement costs as much as to read so many in order.
            return _AT_FIRST * _GROWTH // (len(ordered) - 1)
        if look_ups:
            return max(1, _AT_FIRST // look_ups)
        return _AT_FIRST * _GROWTH**2

    def _size_of_page(self, found: Sequence[Source], limit: int) -> int:
        """Return how many to look at first for a page: no more, if nothing is asked of them."""
        ordered = self._ordered(found)
        is_asked = len(ordered) > 1 or bool(self._asked(ordered[0]))
        return max(self._at_first(found), limit) if is_asked else limit

    def _look_ups(self, source: Source) -> int:
        """Return how often something is looked up for each device of a source."""
        return sum(type(each) is not str for each in self._asked(source))

    def _asked(self, source: Source) -> Sequence[Condition]:
        """Return the conditions that a source does not answer."""
        return [each for each in self._wanted.conditions if each not in source.answers]

    def _is_asked(self, found: Sequence[Source], condition: Condition) -> bool:
        """Say whether no source answers a condition."""
        return all(condition not in each.answers for each in found)

    def _is_answer(self, source: Source) -> bool:
        return (source.is_distinct or source.is_ordered) and not self._asked(source)

    def _size(self, source: Source, limit: int) -> Select[int]:
        every = Span("")
        if source.is_distinct:
            return select(source.size(every, limit))
        return select(func.count()).select_from(source.first(every, limit))

    def _window(self, source: Source, span: Span, limit: int) -> Window:
        return Window(self._wanted, source.first(span, limit), self._asked(source))

    async def _ids(self, window: Window, limit: int) -> list[str]:
        query = window.matching().order_by(window.ids.c.device_id).limit(limit)
        return list(await self._session.scalars(query))

    async def _number(self, window: Window, limit: int) -> int:
        some = window.matching().limit(limit).subquery()
        return await self._session.scalar(select(func.count()).select_from(some)) or 0

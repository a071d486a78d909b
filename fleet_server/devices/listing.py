"""Finds the devices of a list, reading a bounded number of them for each answer.

1. Where one source (`fleet_server.devices.sources`) gives few, all of them are looked at.
2. Otherwise an ordered source is read from the place on where the last answer ended, more of it
   each time, until the page is full. When that takes long, the answer is what was found by then,
   and how far it looked: conditions that are common each and rare together take several answers,
   none of which takes longer than another. Of several sources that is the one that is the
   sparsest there.
3. If a part of an id was not found often enough soon, those that contain it are few, perhaps: the
   index over parts of ids is given as long to say so.

Which way is quicker is decided here from counts, not by a database from its statistics: it would
often be wrong, as these know nothing of an attribute that lies together in the order of ids.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    exists,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.devices import health, selection, sources
from fleet_server.devices.health import Health
from fleet_server.devices.sources import Condition, Source, Wanted
from fleet_server.devices.tables import Device

BUDGET_S = 0.02
"""After so long an answer is what was found so far."""

_FEW = 3000
"""Of so many devices each is looked at, if that is to ask one thing of them."""
_AT_FIRST = 1000
_AT_LEAST = 100
_GROWTH = 4
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
        source, is_small = await self._source(await self._sources(), after)
        if is_small:
            every = source.first(after, self._few(source))
            return Found(await self._ids(source, every, limit), None)
        ids: list[str] = []

        async def take(window: Subquery) -> bool:
            ids.extend(await self._ids(source, window, limit - len(ids)))
            return len(ids) == limit

        size = max(self._at_first(source), limit) if self._open(source) else limit
        if self._with_part is not None:
            # Most texts are found at once, or nearly nowhere.
            end = await self._walk(source, after, size, take, until=self._monotonic())
            if end is None:
                return Found(ids, None)
            read = partial(self._rare, self._with_part, end, limit - len(ids))
            rare = await self._in_time(read)
            if rare is not None:
                return Found([*ids, *rare], None)
            after = end
        return Found(ids, await self._walk(source, after, size, take, until=until))

    async def count(self, limit: int) -> Counted:
        """Count the devices, up to a limit."""
        until = self._monotonic() + BUDGET_S
        found = await self._sources()
        every = [*found, sources.everything(self._wanted)]
        whole = next((each for each in every if self._is_answer(each)), None)
        if whole is not None:
            number = await self._session.scalar(self._size(whole, limit)) or 0
            return Counted(number, is_capped=number == limit)
        source, is_small = await self._source(found, "")
        if is_small:
            number = await self._number(source, source.first("", self._few(source)), limit)
            return Counted(number, is_capped=number == limit)
        if self._with_part is not None:
            count_rare = partial(self._number_of_rare, self._with_part, limit)
            rare = await self._in_time(count_rare)
            if rare is not None:
                return Counted(rare, is_capped=rare == limit)
        number = 0

        async def take(window: Subquery) -> bool:
            nonlocal number
            number += await self._number(source, window, limit - number)
            return number == limit

        end = await self._walk(source, "", self._at_first(source), take, until=until)
        return Counted(number, is_capped=end is not None or number == limit)

    async def _walk(
        self,
        source: Source,
        after: str,
        size: int,
        take: Callable[[Subquery], Awaitable[bool]],
        *,
        until: float,
    ) -> str | None:
        """Hand out one window after another until one says that it is enough; return the end.

        The end is None after the last device, and where it was enough.
        """
        at: str | None = after
        while at is not None:
            began = self._monotonic()
            if await take(source.first(at, size)):
                return None
            at = await self._end(source, at, size)
            now = self._monotonic()
            if now >= until:
                return at
            fits = round(size * (until - now) / max(now - began, 1e-6))
            size = max(_AT_LEAST, min(size * _GROWTH, fits))
        return None

    async def _sources(self) -> list[Source]:
        return await sources.of(self._session, self._wanted)

    async def _source(self, found: Sequence[Source], after: str) -> tuple[Source, bool]:
        """Return where to look, and whether there are few in it."""
        everything = sources.everything(self._wanted)
        if not found or (len(found) == 1 and found[0].is_ordered):
            return (found[0] if found else everything), False
        outlooks = [each.outlook(after, self._few(each)) for each in found]
        together: FromClause = outlooks[0]
        for each in outlooks[1:]:
            together = together.join(each, true())
        columns = [column for each in outlooks for column in (each.c.number, each.c.last)]
        row = (await self._session.execute(select(*columns).select_from(together))).one()
        numbers, lasts = row[::2], row[1::2]
        sizes = [(number, at) for at, number in enumerate(numbers) if number < self._few(found[at])]
        if sizes:
            return found[min(sizes)[1]], True
        spans = [(last, at) for at, last in enumerate(lasts) if found[at].is_ordered]
        return (found[max(spans)[1]] if spans else everything), False

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

    async def _rare(self, source: Source, after: str, limit: int) -> list[str] | None:
        few = self._few(source)
        window = source.first(after, few)
        counted = select(window.c.device_id, func.count().over().label("number")).subquery()
        query = select(counted).where(*self._where(source, counted))
        query = query.order_by(counted.c.device_id).limit(limit)
        rows = (await self._session.execute(query)).all()
        number = rows[0].number if rows else 0
        if not rows and self._open(source):
            number = await self._session.scalar(select(source.size(after, few)))
        return None if number == few else [row.device_id for row in rows]

    async def _number_of_rare(self, source: Source, limit: int) -> int | None:
        if not self._open(source):
            return await self._session.scalar(select(source.size("", limit)))
        few = self._few(source)
        if await self._session.scalar(select(source.size("", few))) == few:
            return None
        return await self._number(source, source.first("", few), limit)

    def _few(self, source: Source) -> int:
        """Return of how many each is looked at: of more, if nothing else is asked of them."""
        if not self._open(source):
            return _FEW * _GROWTH
        return max(1, _FEW // max(1, self._look_ups(source)))

    def _at_first(self, source: Source) -> int:
        """Return how many to look at first: many, if only their ids are compared."""
        look_ups = self._look_ups(source)
        if look_ups:
            return max(1, _AT_FIRST // look_ups)
        return _AT_FIRST * (_GROWTH if self._with_part else _GROWTH**2)

    def _look_ups(self, source: Source) -> int:
        """Return how often something is looked up for each device of a source."""
        return sum(type(each) is not str for each in self._open(source))

    def _open(self, source: Source) -> list[Condition]:
        """Return the conditions that a source does not answer."""
        return [each for each in self._wanted.conditions if each not in source.answers]

    def _is_answer(self, source: Source) -> bool:
        return (source.is_distinct or source.is_ordered) and not self._open(source)

    def _size(self, source: Source, limit: int) -> Select[int]:
        if source.is_distinct:
            return select(source.size("", limit))
        return select(func.count()).select_from(source.first("", limit))

    def _where(self, source: Source, window: Subquery) -> list[ColumnElement[bool]]:
        return [self._holds(each, window.c.device_id) for each in self._open(source)]

    def _holds(self, condition: Condition, device_id: ColumnElement[str]) -> ColumnElement[bool]:
        tenant = self._wanted.tenant
        match condition:
            case Health():
                query = select(Device.id).where(
                    Device.id == device_id,
                    Device.tenant == tenant,
                    health.condition(condition, now_ms=self._wanted.now_ms),
                )
                return exists(query.offset(0))
            case str():
                return selection.contains(device_id, condition)
            case _:
                return selection.looked_up(condition, device_id, literal(tenant))

    async def _ids(self, source: Source, window: Subquery, limit: int) -> list[str]:
        ids = window.c.device_id
        query = select(ids).where(*self._where(source, window)).order_by(ids).limit(limit)
        return list(await self._session.scalars(query))

    async def _number(self, source: Source, window: Subquery, limit: int) -> int:
        some = select(window.c.device_id).where(*self._where(source, window)).limit(limit)
        return await self._session.scalar(select(func.count()).select_from(some.subquery())) or 0

    async def _end(self, source: Source, after: str, size: int) -> str | None:
        """Return the last id of a window that is full; None if there are no more."""
        ids = source.first(after, size).c.device_id
        return await self._session.scalar(select(ids).order_by(ids).offset(size - 1).limit(1))

"""Finds the devices of a list, reading a bounded number of them for each answer.

1. Where one source (`fleet_server.devices.sources`) gives few, all of them are looked at.
2. Otherwise an ordered source is read from the place on where the last answer ended, more of it
   each time, until the page is full. When that takes long, the answer is what was found by then,
   and how far it looked: conditions that are common each and rare together take several answers,
   none of which takes longer than another.

Which way is quicker is decided here from counts, not by a database from its statistics: it would
often be wrong, as these know nothing of an attribute that lies together in the order of ids.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Subquery, exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.devices import health, selection, sources
from fleet_server.devices.health import Health
from fleet_server.devices.sources import Condition, Source, Wanted
from fleet_server.devices.tables import Device

BUDGET_S = 0.02
"""After so long an answer is what was found so far."""

_FEW = 4000
"""Of so many devices each is looked at."""
_AT_FIRST = 1000
_AT_LEAST = 100
_GROWTH = 4


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


class Listing:
    """One list, as one session reads it."""

    def __init__(
        self,
        session: AsyncSession,
        wanted: Wanted,
        *,
        finds_parts: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            session: for reading.
            wanted: what holds for the devices.
            finds_parts: there is an index over parts of ids.
            monotonic: says how long it takes.
        """
        self._session = session
        self._wanted = wanted
        self._finds_parts = finds_parts
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
        return Found(ids, await self._walk(source, after, size, take, until=until))

    async def count(self, limit: int) -> Counted:
        """Count the devices, up to a limit."""
        until = self._monotonic() + BUDGET_S
        found = await self._sources()
        every = [*found, sources.everything(self._wanted)]
        whole = next((each for each in every if self._is_answer(each)), None)
        if whole is not None:
            number = await self._session.scalar(select(whole.size("", limit))) or 0
            return Counted(min(number, limit), is_capped=number >= limit)
        source, is_small = await self._source(found, "")
        if is_small:
            number = await self._number(source, source.first("", self._few(source)), limit)
            return Counted(number, is_capped=number == limit)
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
        return await sources.of(self._session, self._wanted, finds_parts=self._finds_parts)

    async def _source(self, found: Sequence[Source], after: str) -> tuple[Source, bool]:
        """Return where to look, and whether there are few in it."""
        everything = sources.everything(self._wanted)
        if not found or (len(found) == 1 and found[0].is_ordered):
            return (found[0] if found else everything), False
        sizes = (each.size(after, self._few(each)) for each in found)
        row = (await self._session.execute(select(*sizes))).one()
        sized = sorted(zip(row, found, strict=True), key=lambda each: int(each[0]))
        for size, source in sized:
            if size < self._few(source):
                return source, True
        return next((each for _, each in sized if each.is_ordered), everything), False

    def _few(self, source: Source) -> int:
        """Return of how many each is looked at: of more, if nothing else is asked of them."""
        return _FEW if self._open(source) else _FEW * _GROWTH

    def _at_first(self, source: Source) -> int:
        """Return how many to look at first: many, if only their ids are compared."""
        is_cheap = all(type(each) is str for each in self._open(source))
        return _AT_FIRST * (_GROWTH**2 if is_cheap else 1)

    def _open(self, source: Source) -> list[Condition]:
        """Return the conditions that a source does not answer."""
        return [each for each in self._wanted.conditions if each not in source.answers]

    def _is_answer(self, source: Source) -> bool:
        return source.is_distinct and not self._open(source)

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

"""Walks through what several ordered sources have in common, a window of ids after the other.

No device can come before the greatest of the sources' next ids, so the walk goes on from there.
Each source says of its ids from there on how many there are, and the last of them; the window ends
where the sparsest source's ids end. Another source that has not many more of them in that window is
read beside it, as both are in order; of one that has far more, each device is looked up by its key.
For all that, PostgreSQL takes as long as for a few thousand ids, wherever in the list they lie.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    exists,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.devices import health, selection
from fleet_server.devices.health import Health
from fleet_server.devices.sources import Condition, Source, Span, Wanted
from fleet_server.devices.tables import Device

_AT_LEAST = 100
_GROWTH = 4
_BESIDE = 8
"""So many ids that are read in order cost no more than one that is looked up."""
_WORTH = 300
"""Look-ups for which it is worth to ask whether they could be spared."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some ids, and what is still to be asked of them."""

    wanted: Wanted
    ids: Subquery
    asked: Sequence[Condition]

    def matching(self) -> Select[str]:
        """Return the query for those ids for which all holds."""
        ids = self.ids.c.device_id
        return select(ids).where(*(self._holds(each, ids) for each in self.asked))

    def _holds(self, condition: Condition, device_id: ColumnElement[str]) -> ColumnElement[bool]:
        tenant = self.wanted.tenant
        match condition:
            case Health():
                query = select(Device.id).where(
                    Device.id == device_id,
                    Device.tenant == tenant,
                    health.condition(condition, now_ms=self.wanted.now_ms),
                )
                return exists(query.offset(0))
            case str():
                return selection.contains(device_id, condition)
            case _:
                return selection.looked_up(condition, device_id, literal(tenant))


Take = Callable[[Window], Awaitable[bool]]
"""Reads a window; says whether that was enough."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a source has next.

    Attributes:
        number: of ids from the greatest next one of all sources on, up to the limit asked for.
        start: the greatest of the first of these of all sources.
        reach: the place of its last id among those of all sources.
    """

    source: Source
    number: int
    last: str
    start: str
    reach: int


class Walk:
    """One walk, as one session does it."""

    def __init__(
        self,
        session: AsyncSession,
        wanted: Wanted,
        sources: Sequence[Source],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            session: for reading.
            wanted: what holds for the devices.
            sources: ordered ones, at least one; each gives all that is wanted.
            monotonic: says how long it takes.
        """
        self._session = session
        self._wanted = wanted
        self._sources = sources
        self._monotonic = monotonic

    async def run(self, after: str, size: int, take: Take, *, until: float) -> str | None:
        """Hand out one window after another until one is enough; return how far that went.

        Args:
            after: the id before the first one.
            size: of the first window, about.
            take: reads a window.
            until: when it ends, if neither the devices end before nor one window was enough.

        Returns:
            The last id that was looked at; None after the last device, and where it was enough.
        """
        step = self._first_of_one if len(self._sources) == 1 else self._next_of_several
        while True:
            began = self._monotonic()
            end = await step(after, size, take)
            if end is None:
                return None
            now, after = self._monotonic(), end
            if not fits(until - now, took_s=now - began):
                return after
            most = round(size * (until - now) / max(now - began, 1e-6))
            size = max(_AT_LEAST, min(size * _GROWTH, most))

    async def _first_of_one(self, after: str, size: int, take: Take) -> str | None:
        """Take the next ids of the only source; where they end is asked if more are needed.

        Returns:
            The last of them; None if that was enough, or there are no more.
        """
        (source,) = self._sources
        ids = source.first(Span(after), size)
        if await take(self.window(source, ids)):
            return None
        last = select(ids.c.device_id).order_by(ids.c.device_id).offset(size - 1).limit(1)
        return await self._session.scalar(last)

    async def _next_of_several(self, after: str, size: int, take: Take) -> str | None:
        """Take what several sources have in common next; returns the same."""
        seen = await self._outlooks(Span(after), size)
        if len(seen) < len(self._sources):
            return None  # one of them has no more
        base, beside, others = _chosen(seen, size)
        end = base.last if base.number == size else None
        here = Span(base.start, is_included=True, end=end)
        beside += await self._comparable(here, base, others)
        ids = _common(base.source, beside, here, size)
        return None if await take(self.window(base.source, ids, beside)) else end

    def window(self, source: Source, ids: Subquery, beside: Sequence[Source] = ()) -> Window:
        """Return ids with what the sources that they are from do not answer."""
        answered = [each for one in (source, *beside) for each in one.answers]
        asked = [each for each in self._wanted.conditions if each not in answered]
        return Window(self._wanted, ids, asked)

    async def _outlooks(self, span: Span, size: int) -> list[Outlook]:
        """Return what each source has next, without those that have nothing.

        Ids are compared by the database, which alone knows how it orders them.
        """
        nexts = union_all(*(each.start(span) for each in self._sources)).subquery()
        leap = select(func.max(nexts.c.device_id).label("device_id")).cte("leap")
        here = Span(select(leap.c.device_id).scalar_subquery(), is_included=True)
        some = [each.first(here, size) for each in self._sources]
        rows = union_all(
            *(
                select(
                    literal(at).label("at"),
                    func.count().label("number"),
                    func.min(ids.c.device_id).label("first"),
                    func.max(ids.c.device_id).label("last"),
                ).select_from(ids)
                for at, ids in enumerate(some)
            )
        ).subquery()
        query = select(
            rows.c.at,
            rows.c.number,
            rows.c.last,
            func.max(rows.c.first).over(),
            func.rank().over(order_by=rows.c.last),
        ).where(rows.c.number > 0)
        return [
            Outlook(self._sources[at], number, last, start, reach)
            for at, number, last, start, reach in await self._session.execute(query)
        ]

    async def _comparable(
        self, span: Span, base: Outlook, others: Sequence[Source]
    ) -> list[Source]:
        """Return those of other sources that have not many more ids in a span."""
        asked = self.window(base.source, base.source.first(span, 1)).asked
        # One that answers nothing still has few of those that are to be asked.
        spared = [each for each in others if not each.answers or set(each.answers) & set(asked)]
        if not spared or base.number * len(spared) < _WORTH:
            return []
        limit = base.number * _BESIDE
        sizes = [each.size(span, limit).label(f"n{at}") for at, each in enumerate(spared)]
        row = (await self._session.execute(select(*sizes))).one()
        return [each for each, number in zip(spared, row, strict=True) if number < limit]


def fits(left_s: float, *, took_s: float) -> bool:
    """Say whether there is time for another step like the last one.

    For fewer ids it would hardly be shorter: most of a step is its statements.
    """
    return left_s >= took_s


def _common(base: Source, beside: Sequence[Source], span: Span, size: int) -> Subquery:
    """Return the ids of a span that several sources have, of which the first has up to a size."""
    ids = base.first(span, size)
    others = [select(each.first(span, size * _BESIDE).c.device_id) for each in beside]
    # Not as a join: PostgreSQL, which may believe that there are few, would read the one anew for
    # each id of the other. Of an IN that is compared with something it makes a hash table.
    query = select(ids.c.device_id).where(*(ids.c.device_id.in_(each).is_(True) for each in others))
    return query.subquery() if others else ids


def _chosen(seen: Sequence[Outlook], size: int) -> tuple[Outlook, list[Source], list[Source]]:
    """Return what to read, what to read beside it, and the others: those with far more ids."""
    ended = [each for each in seen if each.number < size]
    base = (
        min(ended, key=lambda each: each.number)
        if ended
        else max(seen, key=lambda each: each.reach)
    )
    left = [each for each in seen if each is not base]
    return (
        base,
        [each.source for each in left if each.number < size],
        [each.source for each in left if each.number == size],
    )

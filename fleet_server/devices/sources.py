"""Where to look for the devices of a list: indices that give all devices of one kind, no others.

A source that is ordered gives them in the order of ids from any id on, however many there are. Of
another one all have to be read, so it serves where there are few. Each is scoped to a tenant by
its index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    and_,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fleet_server.devices import health, selection
from fleet_server.devices.health import Health
from fleet_server.devices.selection import Numbers
from fleet_server.devices.selector import ID, AnyOf, Compared, Has, NoneOf, Requirement
from fleet_server.devices.tables import Device, DeviceTerm

MIN_INDEXED = 3
"""Characters of which the index over parts of ids can make something."""

MAX_BRANCHES = 64
"""Values of a name that are read side by side."""
_SEARCH_INDEX = "ix_term_search"
"""Made by a migration where that is permitted; not in the metadata, as it may be missing."""

_TERM = aliased(DeviceTerm)
"""One for all queries, none of which is inside of another: to make one takes as long as to ask."""

Condition = Requirement | Numbers | Health | str
"""What holds for the devices of a list; a text is a part of their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose devices a list shows, and what holds for them now."""

    tenant: str
    requirements: Sequence[Requirement | Numbers]
    search: str
    health: Health | None
    now_ms: int

    @property
    def conditions(self) -> list[Condition]:
        """All that holds."""
        others: list[Condition] = [each for each in (self.search, self.health) if each]
        return [*self.requirements, *others]


@dataclass(frozen=True, slots=True)
class Span:
    """The ids between two.

    Attributes:
        after: where it begins; the database may be asked for it in the same statement.
        is_included: whether that one is in it.
        end: the last that is in it; None for all that follow.
    """

    after: str | ColumnElement[str]
    is_included: bool = False
    end: str | None = None

    def holds(self, column: ColumnElement[str] | InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """Return the condition that an id is in it."""
        start = column >= self.after if self.is_included else column > self.after
        return start if self.end is None else and_(start, column <= self.end)


@dataclass(frozen=True, slots=True)
class Branch:
    """A query for the ids of a span, and by what its index has them in order."""

    query: Select[str]
    key: ColumnElement[Any] | InstrumentedAttribute[Any] | None = None

    def first(self, limit: int) -> Subquery:
        """Return the first ids, by the index."""
        query = self.query if self.key is None else self.query.order_by(self.key)
        return query.limit(limit).subquery()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Devices for which some conditions hold.

    Attributes:
        answers: these; they need not be asked of what it gives.
        branches: the queries that together give the ids of a span.
        is_ordered: each of them gives ids in their order.
        is_distinct: none of them gives an id twice.
    """

    answers: Sequence[Condition] = ()
    branches: Callable[[Span], Sequence[Branch]]
    is_ordered: bool
    is_distinct: bool = True

    def first(self, span: Span, limit: int) -> Subquery:
        """Return up to ``limit`` ids of a span: the first of them, if the source is ordered."""
        parts = [each.first(limit) for each in self.branches(span)]
        if len(parts) == 1 and self.is_distinct:
            return parts[0]
        # Not by DISTINCT, for which PostgreSQL would read and sort all of each branch: so it
        # merges them, as they are in order, and stops early.
        every = union_all(*(select(part) for part in parts)).subquery().c.device_id
        if self.is_distinct:
            return select(every).order_by(every).limit(limit).subquery()
        before = func.lag(every).over(order_by=every)
        both = select(every, before.label("before")).subquery()
        first = select(both.c.device_id).where(both.c.before.is_distinct_from(both.c.device_id))
        return first.order_by(both.c.device_id).limit(limit).subquery()

    def start(self, span: Span) -> Select[str]:
        """Return the first id of a span; the source is ordered."""
        parts = [select(each.first(1).c.device_id) for each in self.branches(span)]
        every = parts[0] if len(parts) == 1 else union_all(*parts)
        return select(func.min(every.subquery().c.device_id).label("device_id"))

    def size(self, span: Span, limit: int) -> ColumnElement[int]:
        """Return how many ids are in a span, up to a limit; twice, those it gives twice."""
        parts = [select(each.first(limit)) for each in self.branches(span)]
        every = parts[0] if len(parts) == 1 else select(union_all(*parts).limit(limit).subquery())
        return select(func.count()).select_from(every.subquery()).scalar_subquery()


def everything(wanted: Wanted) -> Source:
    """Return the source of all devices of a tenant."""
    return Source(branches=partial(_ids, wanted), is_ordered=True)


async def known(session: AsyncSession, wanted: Wanted) -> Wanted:
    """Say of comparisons for which numbers they hold, where these are not too many."""
    requirements: list[Requirement | Numbers] = []
    for each in wanted.requirements:
        numbers = await values(session, wanted, each) if isinstance(each, Compared) else []
        if isinstance(each, Compared) and 0 < len(numbers) <= MAX_BRANCHES:
            requirements.append(Numbers(each, tuple(map(float, numbers))))
        else:
            requirements.append(each)
    return replace(wanted, requirements=requirements)


def with_part(wanted: Wanted) -> Source | None:
    """Return the source of the ids that contain a text, by the index over parts of ids.

    How long that takes has no bound: the index is one for all tenants, and of some texts it knows
    no more than that most ids may contain them.
    """
    if len(wanted.search) < MIN_INDEXED:
        return None
    return Source(answers=[wanted.search], branches=partial(_parts, wanted), is_ordered=False)


async def of(session: AsyncSession, wanted: Wanted) -> list[Source]:
    """Return the sources for a list, each of which gives all that is wanted and more."""
    found = [
        source
        for each in wanted.requirements
        if (source := await _of_requirement(session, wanted, each)) is not None
    ]
    if wanted.health is Health.OFFLINE and len(wanted.conditions) > 1:
        # Their health is asked at last, of those for which the others hold: it is in their rows.
        found.append(Source(branches=partial(_silent, wanted), is_ordered=True))
    elif wanted.health not in {None, Health.HEALTHY}:
        branches = partial(_of_health, wanted)
        is_ordered = wanted.health is not Health.EXPIRED
        found.append(Source(answers=[wanted.health], branches=branches, is_ordered=is_ordered))
    return found


async def has_search_index(session: AsyncSession) -> bool:
    """Say whether the database has the index over parts of ids."""
    if session.get_bind().dialect.name != "postgresql":
        return False
    return bool(await session.scalar(select(func.to_regclass(_SEARCH_INDEX).is_not(None))))


async def _of_requirement(
    session: AsyncSession, wanted: Wanted, requirement: Requirement | Numbers
) -> Source | None:
    match requirement:
        case AnyOf():
            return _of_values(wanted, requirement, requirement.values)
        case Numbers():
            return _of_values(wanted, requirement, requirement.numbers)
        case Has(name):
            every = await values(session, wanted, requirement)
            if len(every) > MAX_BRANCHES or not every:
                return _of_range(wanted, requirement)
            excluded = {
                value
                for each in wanted.requirements
                if isinstance(each, NoneOf) and each.name == name
                for value in each.values
            }
            left = [value for value in every if value not in excluded]
            return _of_values(wanted, requirement, left or every)
        case Compared():
            return _of_range(wanted, requirement)
    return None


def _of_values(
    wanted: Wanted, requirement: Requirement | Numbers, some: Sequence[str | float]
) -> Source:
    return Source(
        answers=[requirement],
        branches=partial(_with_values, wanted, requirement.name, some),
        is_ordered=True,
        is_distinct=len(some) == 1,
    )


def _of_range(wanted: Wanted, requirement: Compared | Has) -> Source:
    return Source(
        answers=[requirement],
        branches=partial(_in_range, wanted, requirement),
        is_ordered=False,
        is_distinct=False,
    )


async def values(
    session: AsyncSession, wanted: Wanted, requirement: Has | Compared
) -> Sequence[str | float]:
    """Return the values of a name, or its numbers that compare so; up to one more than is read."""
    found = values_above(wanted, requirement, MAX_BRANCHES + 1)
    return list(await session.scalars(select(found.c.value)))


def values_above(wanted: Wanted, requirement: Has | Compared, limit: int) -> Subquery:
    """Return the values of a name, each found in the index after the one before."""

    def smallest(*, above: ColumnElement[Any] | None) -> Select[Any]:
        column = _TERM.value if isinstance(requirement, Has) else _TERM.number
        query = select(func.min(column).label("value")).where(
            _TERM.tenant == wanted.tenant, _TERM.name == requirement.name
        )
        if isinstance(requirement, Compared):
            query = query.where(selection.compared(_TERM.number, requirement))
        return query if above is None else query.where(column > above)

    found = smallest(above=None).cte("found", recursive=True)
    following = smallest(above=found.c.value).scalar_subquery()
    found = found.union_all(select(following).where(found.c.value.is_not(None)))
    return select(found.c.value).where(found.c.value.is_not(None)).limit(limit).subquery()


def first_with(wanted: Wanted, name: str, value: ColumnElement[str]) -> ColumnElement[str]:
    """Return the first id that has a value."""
    query = select(func.min(_TERM.device_id)).where(
        _TERM.tenant == wanted.tenant, _TERM.name == name, _TERM.value == value
    )
    return query.scalar_subquery()


def _ids(wanted: Wanted, span: Span) -> list[Branch]:
    # By value, which here is the id: the index has the ids of one name in no other order.
    query = select(_TERM.value.label("device_id")).where(
        _TERM.tenant == wanted.tenant, _TERM.name == _ID_NAME, span.holds(_TERM.value)
    )
    return [Branch(query, _TERM.value)]


def _parts(wanted: Wanted, span: Span) -> list[Branch]:
    query = select(_TERM.device_id).where(
        _TERM.tenant == wanted.tenant,
        _TERM.name == _ID_NAME,
        selection.contains(_TERM.value, wanted.search),
        span.holds(_TERM.device_id),
    )
    return [Branch(query)]


_ID_NAME: ColumnElement[str] = literal_column(f"'{ID}'")
"""Written out, as the condition of the index over parts of ids is."""


def with_value(wanted: Wanted, name: str, value: str | float, span: Span) -> Branch:
    """Return the devices of a span that have a value."""
    column = _TERM.value if isinstance(value, str) else _TERM.number
    return Branch(_named(wanted, name, span).where(column == value), _TERM.device_id)


def _with_values(
    wanted: Wanted, name: str, some: Sequence[str | float], span: Span
) -> list[Branch]:
    return [with_value(wanted, name, each, span) for each in some]


def _in_range(wanted: Wanted, requirement: Compared | Has, span: Span) -> list[Branch]:
    query = _named(wanted, requirement.name, span)
    if isinstance(requirement, Has):
        return [Branch(query, _TERM.value)]
    return [Branch(query.where(selection.compared(_TERM.number, requirement)), _TERM.number)]


def _named(wanted: Wanted, name: str, span: Span) -> Select[str]:
    return select(_TERM.device_id).where(
        _TERM.tenant == wanted.tenant, _TERM.name == name, span.holds(_TERM.device_id)
    )


def _of_health(wanted: Wanted, span: Span) -> list[Branch]:
    """Return the branches of what few devices are: all words but healthy."""
    word = wanted.health or Health.HEALTHY
    every = select(Device.id.label("device_id")).where(
        Device.tenant == wanted.tenant, health.condition(word, now_ms=wanted.now_ms)
    )
    query = every.where(span.holds(Device.id))
    if word is Health.EXPIRED:
        return [Branch(query, Device.certificate_expires_ms)]
    if word is not Health.OFFLINE:
        return [Branch(query, Device.id)]
    late = every.where(Device.silent.is_(False)).order_by(Device.last_seen_ms).offset(0).subquery()
    return [
        Branch(query.where(Device.silent.is_(True)), Device.id),
        Branch(select(late.c.device_id).where(span.holds(late.c.device_id)), late.c.device_id),
    ]


def _silent(wanted: Wanted, span: Span) -> list[Branch]:
    """Return the branches of all that may be offline, those out of service as well.

    Those not marked yet are few, and read by when they were heard. By the table: of a condition on
    the tenant PostgreSQL would make use, by an index that has all devices.
    """
    marked = select(Device.id.label("device_id")).where(
        Device.tenant == wanted.tenant, Device.silent.is_(True), span.holds(Device.id)
    )
    row = Device.__table__.alias().c
    late = (
        select(row.id, row.tenant)
        .where(row.silent.is_(False), row.last_seen_ms < wanted.now_ms - health.SILENT_AFTER_MS)
        .order_by(row.last_seen_ms)
        .offset(0)
        .subquery()
    )
    of_tenant = select(late.c.id.label("device_id")).where(
        late.c.tenant == wanted.tenant, span.holds(late.c.id)
    )
    return [Branch(marked, Device.id), Branch(of_tenant, late.c.id)]

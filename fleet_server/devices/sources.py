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
    func,
    literal,
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
class Branch:
    """A query for the ids after one, and by what its index has them in order."""

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
        branches: the queries that together give the ids after one.
        is_ordered: each of them gives ids in their order.
        is_distinct: none of them gives an id twice.
    """

    answers: Sequence[Condition] = ()
    branches: Callable[[str], Sequence[Branch]]
    is_ordered: bool
    is_distinct: bool = True

    def first(self, after: str, limit: int) -> Subquery:
        """Return up to ``limit`` ids after one: the next of them, if the source is ordered."""
        parts = [each.first(limit) for each in self.branches(after)]
        if len(parts) == 1 and self.is_distinct:
            return parts[0]
        # Not by DISTINCT, for which PostgreSQL would read and sort all of each branch: so it
        # merges them, as they are in order, and stops early.
        every = union_all(*(select(part) for part in parts)).subquery().c.device_id
        before = func.lag(every).over(order_by=every)
        both = select(every, before.label("before")).subquery()
        first = select(both.c.device_id).where(both.c.before.is_distinct_from(both.c.device_id))
        return first.order_by(both.c.device_id).limit(limit).subquery()

    def size(self, after: str, limit: int) -> ColumnElement[int]:
        """Return how many ids come after one, up to a limit; twice, those it gives twice."""
        parts = [select(each.first(limit)) for each in self.branches(after)]
        every = parts[0] if len(parts) == 1 else select(union_all(*parts).limit(limit).subquery())
        return select(func.count()).select_from(every.subquery()).scalar_subquery()

    def outlook(self, after: str, limit: int) -> Subquery:
        """Return one row: the ``number`` of ids after one, up to a limit, and their ``last``.

        The farther that is, the fewer there are hereabouts; of a source without order it says
        nothing.
        """
        if not self.is_ordered:
            return select(
                self.size(after, limit).label("number"), literal("").label("last")
            ).subquery()
        ids = self.first(after, limit).c.device_id
        return select(func.count().label("number"), func.max(ids).label("last")).subquery()


def everything(wanted: Wanted) -> Source:
    """Return the source of all devices of a tenant."""
    return Source(branches=partial(_ids, wanted), is_ordered=True)


async def known(session: AsyncSession, wanted: Wanted) -> Wanted:
    """Say of comparisons for which numbers they hold, where these are not too many."""
    requirements: list[Requirement | Numbers] = []
    for each in wanted.requirements:
        numbers = await _values(session, wanted, each) if isinstance(each, Compared) else []
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
            values = await _values(session, wanted, requirement)
            if len(values) > MAX_BRANCHES or not values:
                return _of_range(wanted, requirement)
            excluded = {
                value
                for each in wanted.requirements
                if isinstance(each, NoneOf) and each.name == name
                for value in each.values
            }
            left = [value for value in values if value not in excluded]
            return _of_values(wanted, requirement, left or values)
        case Compared():
            return _of_range(wanted, requirement)
    return None


def _of_values(
    wanted: Wanted, requirement: Requirement | Numbers, values: Sequence[str | float]
) -> Source:
    return Source(
        answers=[requirement],
        branches=partial(_with_values, wanted, requirement.name, values),
        is_ordered=True,
        is_distinct=len(values) == 1,
    )


def _of_range(wanted: Wanted, requirement: Compared | Has) -> Source:
    return Source(
        answers=[requirement],
        branches=partial(_in_range, wanted, requirement),
        is_ordered=False,
        is_distinct=False,
    )


async def _values(
    session: AsyncSession, wanted: Wanted, requirement: Has | Compared
) -> Sequence[str | float]:
    """Return the values of a name, each found in the index after the one before; not too many."""

    def smallest(*, above: ColumnElement[Any] | None) -> Select[Any]:
        term = aliased(DeviceTerm)
        column = term.value if isinstance(requirement, Has) else term.number
        query = select(func.min(column).label("value")).where(
            term.tenant == wanted.tenant, term.name == requirement.name
        )
        if isinstance(requirement, Compared):
            query = query.where(selection.compared(term.number, requirement))
        return query if above is None else query.where(column > above)

    found = smallest(above=None).cte("found", recursive=True)
    following = smallest(above=found.c.value).scalar_subquery()
    found = found.union_all(select(following).where(found.c.value.is_not(None)))
    query = select(found.c.value).where(found.c.value.is_not(None)).limit(MAX_BRANCHES + 1)
    return list(await session.scalars(query))


def _ids(wanted: Wanted, after: str) -> list[Branch]:
    # By value, which here is the id: the index has the ids of one name in no other order.
    term = aliased(DeviceTerm)
    query = select(term.value.label("device_id")).where(
        term.tenant == wanted.tenant, term.name == _ID_NAME, term.value > after
    )
    return [Branch(query, term.value)]


def _parts(wanted: Wanted, after: str) -> list[Branch]:
    term = aliased(DeviceTerm)
    query = select(term.device_id).where(
        term.tenant == wanted.tenant,
        term.name == _ID_NAME,
        selection.contains(term.value, wanted.search),
        term.device_id > after,
    )
    return [Branch(query)]


_ID_NAME: ColumnElement[str] = literal_column(f"'{ID}'")
"""Written out, as the condition of the index over parts of ids is."""


def _with_values(
    wanted: Wanted, name: str, values: Sequence[str | float], after: str
) -> list[Branch]:
    branches = []
    for value in values:
        term, query = _named(wanted, name, after)
        column = term.value if isinstance(value, str) else term.number
        branches.append(Branch(query.where(column == value), term.device_id))
    return branches


def _in_range(wanted: Wanted, requirement: Compared | Has, after: str) -> list[Branch]:
    term, query = _named(wanted, requirement.name, after)
    if isinstance(requirement, Has):
        return [Branch(query, term.value)]
    return [Branch(query.where(selection.compared(term.number, requirement)), term.number)]


def _named(wanted: Wanted, name: str, after: str) -> tuple[type[DeviceTerm], Select[str]]:
    term = aliased(DeviceTerm)
    query = select(term.device_id).where(
        term.tenant == wanted.tenant, term.name == name, term.device_id > after
    )
    return term, query


def _of_health(wanted: Wanted, after: str) -> list[Branch]:
    """Return the branches of what few devices are: all words but healthy."""
    word = wanted.health or Health.HEALTHY
    query = select(Device.id.label("device_id")).where(
        Device.tenant == wanted.tenant,
        health.condition(word, now_ms=wanted.now_ms),
        Device.id > after,
    )
    if word is Health.EXPIRED:
        return [Branch(query, Device.certificate_expires_ms)]
    if word is not Health.OFFLINE:
        return [Branch(query, Device.id)]
    marked = Branch(query.where(Device.silent.is_(True)), Device.id)
    return [marked, _late(query)]


def _silent(wanted: Wanted, after: str) -> list[Branch]:
    """Return the branches of all that may be offline, those out of service as well."""
    query = select(Device.id.label("device_id")).where(
        Device.tenant == wanted.tenant, Device.id > after
    )
    late = query.where(health.condition(Health.OFFLINE, now_ms=wanted.now_ms))
    return [Branch(query.where(Device.silent.is_(True)), Device.id), _late(late)]


def _late(query: Select[str]) -> Branch:
    """Return the branch of those that are silent and not marked yet, which are few."""
    found = query.where(Device.silent.is_(False)).order_by(Device.last_seen_ms).offset(0).subquery()
    return Branch(select(found.c.device_id), found.c.device_id)

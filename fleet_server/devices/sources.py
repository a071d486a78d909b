"""Where to look for the devices of a list: indices that give all devices of one kind, no others.

A source that is ordered gives them in the order of ids from any id on, however many there are. Of
another one all have to be read, so it serves where there are few. Each is scoped to a tenant by
its index.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, func, literal_column, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fleet_server.devices import health, selection
from fleet_server.devices.health import Health
from fleet_server.devices.selector import ID, AnyOf, Compared, Has, NoneOf, Requirement, Selector
from fleet_server.devices.tables import Device, DeviceTerm

MIN_INDEXED = 3
"""Characters of which the index over parts of ids can make something."""

_SEARCH_INDEX = "ix_term_search"
"""Made by a migration where that is permitted; not in the metadata, as it may be missing."""
_ORDERED = {Health.DECOMMISSIONED, Health.REVOKED, Health.NEW, Health.DEGRADED}
_RANGES: dict[Health, InstrumentedAttribute[Any]] = {
    Health.EXPIRED: Device.certificate_expires_ms,
    Health.OFFLINE: Device.last_seen_ms,
}

Condition = Requirement | Health | str
"""What holds for the devices of a list; a text is a part of their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose devices a list shows, and what holds for them now."""

    tenant: str
    selector: Selector
    search: str
    health: Health | None
    now_ms: int

    @property
    def conditions(self) -> list[Condition]:
        """All that holds."""
        others: list[Condition] = [each for each in (self.search, self.health) if each]
        return [*self.selector.requirements, *others]


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
        every = union_all(*(select(part) for part in parts)).subquery()
        distinct = select(every.c.device_id).distinct()
        return distinct.order_by(every.c.device_id).limit(limit).subquery()

    def size(self, after: str, limit: int) -> ColumnElement[int]:
        """Return how many ids each branch gives up to a limit, added up."""
        counts = [
            select(func.count()).select_from(each.first(limit)).scalar_subquery()
            for each in self.branches(after)
        ]
        return sum(counts[1:], start=counts[0])


def everything(wanted: Wanted) -> Source:
    """Return the source of all devices of a tenant."""
    return Source(branches=partial(_ids, wanted), is_ordered=True)


def of(wanted: Wanted, *, finds_parts: bool) -> list[Source]:
    """Return the sources for a list, each of which gives all that is wanted and more.

    Args:
        wanted: by the list.
        finds_parts: there is an index over parts of ids.
    """
    made = [_of_requirement(wanted, each) for each in wanted.selector.requirements]
    found = [source for source in made if source is not None]
    found += _of_others(wanted)
    if finds_parts and len(wanted.search) >= MIN_INDEXED:
        parts = partial(_parts, wanted)
        found.append(Source(answers=[wanted.search], branches=parts, is_ordered=False))
    if wanted.health in _ORDERED or wanted.health in _RANGES:
        found.append(
            Source(
                answers=[wanted.health],
                branches=partial(_of_health, wanted, wanted.health),
                is_ordered=wanted.health in _ORDERED,
            )
        )
    return found


async def has_search_index(session: AsyncSession) -> bool:
    """Say whether the database has the index over parts of ids."""
    if session.get_bind().dialect.name != "postgresql":
        return False
    return bool(await session.scalar(select(func.to_regclass(_SEARCH_INDEX).is_not(None))))


def _of_requirement(wanted: Wanted, requirement: Requirement) -> Source | None:
    match requirement:
        case AnyOf():
            return Source(
                answers=[requirement],
                branches=partial(_with_values, wanted, requirement),
                is_ordered=True,
                is_distinct=len(requirement.values) == 1,
            )
        case Compared() | Has():
            return Source(
                answers=[requirement],
                branches=partial(_in_range, wanted, requirement),
                is_ordered=False,
                is_distinct=False,
            )
    return None


def _of_others(wanted: Wanted) -> Iterator[Source]:
    """Yield sources for ``name,name!=value``: who has another value, which often are few."""
    present = {each for each in wanted.selector.requirements if isinstance(each, Has)}
    for each in wanted.selector.requirements:
        if isinstance(each, NoneOf) and len(each.values) == 1 and Has(each.name) in present:
            yield Source(
                answers=[Has(each.name)],
                branches=partial(_with_others, wanted, each),
                is_ordered=False,
                is_distinct=False,
            )


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


def _with_values(wanted: Wanted, requirement: AnyOf, after: str) -> list[Branch]:
    branches = []
    for value in requirement.values:
        term, query = _named(wanted, requirement.name, after)
        branches.append(Branch(query.where(term.value == value), term.device_id))
    return branches


def _in_range(wanted: Wanted, requirement: Compared | Has, after: str) -> list[Branch]:
    term, query = _named(wanted, requirement.name, after)
    if isinstance(requirement, Has):
        return [Branch(query, term.value)]
    return [Branch(query.where(selection.compared(term.number, requirement)), term.number)]


def _with_others(wanted: Wanted, requirement: NoneOf, after: str) -> list[Branch]:
    value = requirement.values[0]
    below, smaller = _named(wanted, requirement.name, after)
    above, larger = _named(wanted, requirement.name, after)
    return [
        Branch(smaller.where(below.value < value), below.value),
        Branch(larger.where(above.value > value), above.value),
    ]


def _named(wanted: Wanted, name: str, after: str) -> tuple[type[DeviceTerm], Select[str]]:
    term = aliased(DeviceTerm)
    query = select(term.device_id).where(
        term.tenant == wanted.tenant, term.name == name, term.device_id > after
    )
    return term, query


def _of_health(wanted: Wanted, word: Health, after: str) -> list[Branch]:
    query = select(Device.id.label("device_id")).where(
        Device.tenant == wanted.tenant,
        health.condition(word, now_ms=wanted.now_ms),
        Device.id > after,
    )
    return [Branch(query, _RANGES.get(word, Device.id))]

"""Selectors and searches as SQL, the same for SQLite and PostgreSQL.

Each requirement becomes a (negated) EXISTS on `DeviceTerm`. A page starts after a device id, and
that bound is repeated inside the positive requirements: a database does not carry an inequality
over a join, and without it would walk an index from its beginning for each later page.
"""

from sqlalchemy import ColumnElement, Select, and_, exists, literal, not_, select, true
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fleet_server.devices.selector import (
    ID,
    AnyOf,
    Compared,
    Comparison,
    Has,
    Lacks,
    NoneOf,
    Requirement,
    Selector,
)
from fleet_server.devices.tables import Device, DeviceTerm

_ESCAPE = "\\"


def selected(selector: Selector, *, after: str = "") -> ColumnElement[bool]:
    """Return the condition on `Device` that a selector is.

    Args:
        selector: which devices.
        after: the page's start, if there is one; the caller still compares `Device.id` with it.
    """
    return and_(true(), *(_condition(each, after) for each in selector.requirements))


def branches(selector: Selector) -> list[Selector]:
    """Split a selector into ones that together select the same, each quick to answer in order.

    A value has its devices in order in the index; several values together do not, unless a
    database merges them, which PostgreSQL does not see. So where nothing but lists of values says
    where to look, the shortest list becomes a query for each of its values.
    """
    positive = [each for each in selector.requirements if isinstance(each, AnyOf | Has | Compared)]
    lists = [each for each in positive if isinstance(each, AnyOf) and _is_list(each)]
    if not lists or len(lists) < len(positive):
        return [selector]
    split = min(lists, key=lambda each: len(each.values))
    others = tuple(each for each in selector.requirements if each is not split)
    return [Selector((AnyOf(split.name, (value,)), *others)) for value in split.values]


def _is_list(requirement: AnyOf) -> bool:
    return requirement.name != ID and len(requirement.values) > 1


def found(search: str) -> ColumnElement[bool]:
    """Return the condition that a device's id contains a text."""
    escaped = search.lower()
    for special in (_ESCAPE, "%", "_"):
        escaped = escaped.replace(special, _ESCAPE + special)
    return Device.id.like(f"%{escaped}%", escape=_ESCAPE)


def _condition(requirement: Requirement, after: str) -> ColumnElement[bool]:
    if requirement.name == ID:
        return _on_id(requirement)
    match requirement:
        case Has(name):
            return _exists(name, after)
        case Lacks(name):
            return _lacks(name)
        case AnyOf():
            return _has_any(requirement, after)
        case NoneOf(name, values):
            return _lacks(name, values=values)
        case Compared():
            return _exists(requirement.name, after, compared=requirement)


def _lacks(name: str, *, values: tuple[str, ...] = ()) -> ColumnElement[bool]:
    """Return a condition that is looked up for each device, by its key.

    PostgreSQL would make it a join with everything that is excluded, most of the table; a query
    with OFFSET it leaves where it stands. Lists of values are treated alike.
    """
    return not_(exists(_terms(name, values=values).offset(0)))


def _has_any(requirement: AnyOf, after: str) -> ColumnElement[bool]:
    if len(requirement.values) == 1:
        return _exists(requirement.name, after, values=requirement.values)
    return exists(_terms(requirement.name, values=requirement.values).offset(0))


def _exists(
    name: str,
    after: str = "",
    *,
    values: tuple[str, ...] = (),
    compared: Compared | None = None,
) -> ColumnElement[bool]:
    return exists(_terms(name, after, values=values, compared=compared))


def _terms(
    name: str,
    after: str = "",
    *,
    values: tuple[str, ...] = (),
    compared: Compared | None = None,
) -> Select[str]:
    term = aliased(DeviceTerm)
    query = select(term.device_id).where(term.device_id == Device.id, term.name == name)
    if after:
        query = query.where(term.device_id > after)
    if len(values) == 1:
        query = query.where(term.value == values[0])
    elif values:
        query = query.where(term.value.in_(values))
    if compared is not None:
        query = query.where(_compared(term.number, compared))
    return query


def _compared(
    number: ColumnElement[float] | InstrumentedAttribute[float | None], wanted: Compared
) -> ColumnElement[bool]:
    match wanted.comparison:
        case Comparison.LESS:
            return number < wanted.number
        case Comparison.AT_MOST:
            return number <= wanted.number
        case Comparison.MORE:
            return number > wanted.number
        case Comparison.AT_LEAST:
            return number >= wanted.number


def _on_id(requirement: Requirement) -> ColumnElement[bool]:
    """Answer from the devices themselves: each has one id, and the parser compares none."""
    match requirement:
        case AnyOf(_, values):
            return Device.id.in_(values)
        case NoneOf(_, values):
            return Device.id.not_in(values)
        case Has():
            return true()
        case _:
            return literal(value=False)

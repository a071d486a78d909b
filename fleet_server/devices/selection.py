"""Selectors and searches as SQL, the same for SQLite and PostgreSQL.

Each requirement becomes a (negated) EXISTS on `DeviceTerm`. A page starts after a device id, and
that bound is repeated inside the positive requirements: a database does not carry an inequality
over a join, and without it would walk an index from its beginning for each later page.
"""

from sqlalchemy import ColumnElement, and_, exists, literal, not_, select, true
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
            return not_(_exists(name))
        case AnyOf(name, values):
            return _exists(name, after, values=values)
        case NoneOf(name, values):
            return not_(_exists(name, values=values))
        case Compared():
            return _exists(requirement.name, after, compared=requirement)


def _exists(
    name: str,
    after: str = "",
    *,
    values: tuple[str, ...] = (),
    compared: Compared | None = None,
) -> ColumnElement[bool]:
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
    return exists(query)


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

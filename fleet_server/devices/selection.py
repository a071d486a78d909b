"""Selectors as SQL, the same for SQLite and PostgreSQL: conditions on devices that are at hand.

Each requirement becomes a (negated) EXISTS on `DeviceTerm`. `fleet_server.devices.sources` says
where to look for devices at first.
"""

from sqlalchemy import ColumnElement, Select, and_, exists, not_, select, true
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fleet_server.devices.selector import (
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

Text = ColumnElement[str] | InstrumentedAttribute[str]

_ESCAPE = "\\"


def selected(selector: Selector) -> ColumnElement[bool]:
    """Return the condition on `Device` that a selector is, for whoever reads all of a fleet."""
    conditions = (
        _holds(each, Device.id, Device.tenant, by_key=_is_wide(each))
        for each in selector.requirements
    )
    return and_(true(), *conditions)


def looked_up(
    requirement: Requirement, device_id: ColumnElement[str], tenant: ColumnElement[str]
) -> ColumnElement[bool]:
    """Return a condition that is looked up by its key for each device that gets as far."""
    return _holds(requirement, device_id, tenant, by_key=True)


def contains(column: Text, text: str) -> ColumnElement[bool]:
    """Return the condition that a device's id contains a text."""
    escaped = text.lower()
    for special in (_ESCAPE, "%", "_"):
        escaped = escaped.replace(special, _ESCAPE + special)
    return column.like(f"%{escaped}%", escape=_ESCAPE)


def compared(
    number: ColumnElement[float | None] | InstrumentedAttribute[float | None], wanted: Compared
) -> ColumnElement[bool]:
    """Return the condition that a number compares as it is wanted."""
    match wanted.comparison:
        case Comparison.LESS:
            return number < wanted.number
        case Comparison.AT_MOST:
            return number <= wanted.number
        case Comparison.MORE:
            return number > wanted.number
        case Comparison.AT_LEAST:
            return number >= wanted.number


def _is_wide(requirement: Requirement) -> bool:
    """Say whether a requirement is about most of the terms, as what excludes or lists often is."""
    is_list = isinstance(requirement, AnyOf) and len(requirement.values) > 1
    return is_list or isinstance(requirement, Lacks | NoneOf)


def _holds(
    requirement: Requirement, device_id: Text, tenant: Text, *, by_key: bool
) -> ColumnElement[bool]:
    term = aliased(DeviceTerm)
    query: Select[str] = select(term.device_id).where(
        term.device_id == device_id, term.tenant == tenant, term.name == requirement.name
    )
    match requirement:
        case AnyOf(_, values) | NoneOf(_, values) if len(values) == 1:
            query = query.where(term.value == values[0])
        case AnyOf(_, values) | NoneOf(_, values):
            query = query.where(term.value.in_(values))
        case Compared():
            # By key and not by the index of numbers, which PostgreSQL would read for each device.
            query = query.where(compared(term.number + 0 if by_key else term.number, requirement))
        case Has() | Lacks():
            pass
    # PostgreSQL may make a join of it; a query with OFFSET it leaves where it stands.
    found = exists(query.offset(0) if by_key else query)
    return not_(found) if isinstance(requirement, Lacks | NoneOf) else found

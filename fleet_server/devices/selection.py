"""Selectors as SQL, the same for SQLite and PostgreSQL: conditions on devices that are at hand.

Each requirement becomes a (negated) EXISTS on `DeviceTerm`. `fleet_server.devices.sources` says
where to look for devices at first.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, exists, not_, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, aliased

from fleet_server.devices.selector import (
    AnyOf,
    Compared,
    Comparison,
    Lacks,
    NoneOf,
    Requirement,
    Selector,
)
from fleet_server.devices.tables import Device, DeviceTerm

Text = ColumnElement[str] | InstrumentedAttribute[str]

_ESCAPE = "\\"
_ROW = DeviceTerm.__table__.alias()
"""What is looked up; one for all queries, none of which is inside of another."""
_MAX_LOOKED_UP = 8
"""Numbers that are asked for one by one, each of them in its index."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A comparison, once it is known for which of the numbers that devices have it holds."""

    compared: Compared
    numbers: tuple[float, ...]

    @property
    def name(self) -> str:
        """The attribute."""
        return self.compared.name


def selected(selector: Selector) -> ColumnElement[bool]:
    """Return the condition on `Device` that a selector is, for whoever reads all of a fleet."""
    conditions = (
        _holds(each, Device.id, Device.tenant, by_key=_is_wide(each))
        for each in selector.requirements
    )
    return and_(true(), *conditions)


def looked_up(
    condition: Requirement | Numbers, device_id: ColumnElement[str], tenant: ColumnElement[str]
) -> ColumnElement[bool]:
    """Return a condition that is looked up by its key for each device that gets as far.

    The devices have to be of the tenant: their values are found by the ids alone.
    """
    if isinstance(condition, Numbers):
        if len(condition.numbers) <= _MAX_LOOKED_UP:
            return or_(*(_has(condition, each, device_id, tenant) for each in condition.numbers))
        condition = condition.compared
    return _holds(condition, device_id, tenant, by_key=True)


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
    found = exists(
        _keyed(requirement, device_id) if by_key else _joined(requirement, device_id, tenant)
    )
    return not_(found) if isinstance(requirement, Lacks | NoneOf) else found


def _joined(requirement: Requirement, device_id: Text, tenant: Text) -> Select[str]:
    """Return the values that fulfil a requirement, which a database may join as it likes."""
    term = aliased(DeviceTerm)
    query: Select[str] = select(term.device_id).where(
        term.device_id == device_id, term.tenant == tenant, term.name == requirement.name
    )
    match requirement:
        case AnyOf(_, values) | NoneOf(_, values):
            return query.where(term.value.in_(values))
        case Compared():
            return query.where(compared(term.number, requirement))
    return query


def _keyed(requirement: Requirement, device_id: Text) -> Select[str]:
    """Return the same as a look-up by the primary key, which alone answers all but comparisons.

    By the table and not by its class: a condition on the tenant is not in that key, and would make
    PostgreSQL fetch the row.
    """
    query: Select[str] = select(_ROW.c.device_id).where(
        _ROW.c.device_id == device_id, _ROW.c.name == requirement.name
    )
    match requirement:
        case AnyOf(_, (value,)) | NoneOf(_, (value,)):
            query = query.where(_ROW.c.value == value)
        case AnyOf(_, values) | NoneOf(_, values):
            # Few values of a device are compared with many; not many looked up.
            query = query.where((_ROW.c.value + "").in_(values))
        case Compared():
            # Not by the index of numbers, of which PostgreSQL would read a range for each device.
            query = query.where(compared(_ROW.c.number + 0, requirement))
    # PostgreSQL may make a join of it; a query with OFFSET it leaves where it stands.
    return query.offset(0)


def _has(wanted: Numbers, number: float, device_id: Text, tenant: Text) -> ColumnElement[bool]:
    query = select(_ROW.c.device_id).where(
        _ROW.c.tenant == tenant,
        _ROW.c.name == wanted.name,
        _ROW.c.number == number,
        _ROW.c.device_id == device_id,
    )
    return exists(query.offset(0))

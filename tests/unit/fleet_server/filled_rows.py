"""Rows for tests that look at a few of their columns."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Integer, Table

from fleet_server.tenancy import Base


def filled(kind: type[Base], /, **stated: object) -> Base:
    """Return a row in which whatever has to be stated, and is not, has some value of its type."""
    table = kind.__table__
    assert isinstance(table, Table)
    needed = {
        column.key: _some(column)
        for column in table.columns
        if not column.nullable and column.default is None and column.autoincrement is not True
    }
    return kind(**(needed | stated))


def _some(column: Column[Any]) -> object:
    if isinstance(column.type, Boolean):
        return False
    return 1 if isinstance(column.type, Integer | BigInteger) else "x"

"""Notices what a session writes, so that no change of a request goes without an entry.

Rows that the session holds are noted with their columns before and after; a statement that writes
rows unseen is noted as what it is: the statement with its parameters, and how many rows it wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import CursorResult, Result, Table, event, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session, UOWTransaction
from sqlalchemy.sql import ClauseElement

from fleet_server.tenancy import ScopedSession

UNTRACKED = "skerry_untracked"
"""In the ``info`` of a table whose writes change nothing that anybody asked for."""

_CHANGES = "skerry_changes"
_MAX_ROWS = 100
_MAX_TEXT = 500
_KEPT_OUT = ("hash", "sha256", "pem", "document", "secret")
"""Parts of the names of columns that are secret or that only a machine reads."""

Columns = dict[str, object]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that wrote rows unseen.

    Attributes:
        sql: what chose the rows; None for an insertion.
        rows: how many it wrote; None if the database does not say.
        each: the parameters of every row, if it was executed for several.
    """

    table: str
    sql: ClauseElement | None
    rows: int | None
    each: list[Columns]

    def described(self) -> Columns:
        """Return it in types that JSON has, without what is secret."""
        compiled = None if self.sql is None else self.sql.compile()
        each = [_public(row) for row in self.each[:_MAX_ROWS]]
        return {
            "statement": str(compiled or f"INSERT INTO {self.table}")[:_MAX_TEXT],
            "parameters": each or (_public(compiled.params) if compiled else {}),
            "rows": self.rows,
        }


@dataclass(slots=True)
class Changes:
    """What a session wrote so far: names of tables, rows by table and key, statements."""

    tables: set[str] = field(default_factory=set)
    before: dict[str, Columns] = field(default_factory=dict)
    after: dict[str, Columns] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)


def of(session: AsyncSession) -> Changes:
    """Return what a session has written."""
    found = session.info.get(_CHANGES)
    return found if isinstance(found, Changes) else Changes()


@event.listens_for(ScopedSession, "do_orm_execute")
def _note_statement(state: ORMExecuteState) -> Result[*tuple[Any, ...]] | None:
    if not (state.is_insert or state.is_update or state.is_delete) or state.bind_mapper is None:
        return None
    changes = _changes(state.session, state.bind_mapper.local_table)
    if changes is None or len(changes.statements) >= _MAX_ROWS:
        return None
    each = [dict(row) for row in state.parameters] if isinstance(state.parameters, list) else []
    sql = None if state.is_insert else cast("ClauseElement", state.statement)
    result = state.invoke_statement()
    rows = result.rowcount if isinstance(result, CursorResult) else -1
    table = str(state.bind_mapper.local_table)
    changes.statements.append(Statement(table, sql, rows if rows >= 0 else len(each) or None, each))
    return result


@event.listens_for(ScopedSession, "after_flush")
def _note_flush(session: ScopedSession, _context: UOWTransaction) -> None:
    for row in (*session.new, *session.dirty, *session.deleted):
        state: InstanceState[object] = inspect(row)
        changes = _changes(session, state.mapper.local_table)
        if changes is None or len(changes.before) + len(changes.after) >= _MAX_ROWS:
            continue
        key = " ".join(str(part) for part in state.mapper.primary_key_from_instance(row))
        name = f"{state.mapper.local_table} {key}"
        if row in session.deleted:
            changes.before[name] = _all_columns(state)
        elif row in session.new:
            changes.after[name] = _all_columns(state)
        else:
            before, after = _changed_columns(state)
            changes.before |= {name: before} if before else {}
            changes.after |= {name: after} if after else {}


def _changes(session: Session, table: object) -> Changes | None:
    if not isinstance(table, Table) or table.info.get(UNTRACKED):
        return None
    changes: Changes = session.info.setdefault(_CHANGES, Changes())
    changes.tables.add(table.name)
    return changes


def _changed_columns(state: InstanceState[object]) -> tuple[Columns, Columns]:
    before: Columns = {}
    after: Columns = {}
    for name in _names(state):
        history = state.attrs[name].history
        if history.deleted:
            before[name] = _shown(history.deleted[0])
        if history.added:
            after[name] = _shown(history.added[0])
    return before, after


def _all_columns(state: InstanceState[object]) -> Columns:
    return {name: _shown(state.attrs[name].value) for name in _names(state)}


def _names(state: InstanceState[object]) -> list[str]:
    names = [column.key for column in state.mapper.column_attrs]
    return [name for name in names if not any(part in name for part in _KEPT_OUT)]


def _public(parameters: Mapping[str, object]) -> Columns:
    return {
        name: _shown(value)
        for name, value in parameters.items()
        if not any(part in name for part in _KEPT_OUT)
    }


def _shown(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_shown(one) for one in value[:_MAX_ROWS]]
    return value if isinstance(value, str | int | float | bool | None) else str(value)[:_MAX_TEXT]

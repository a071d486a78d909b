"""Notices what a session writes, so that no change of a request goes without an entry.

Rows that the session holds are noted with their columns before and after; a statement that writes
rows unseen is noted by its table.
"""

from dataclasses import dataclass, field

from sqlalchemy import Table, event, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session, UOWTransaction

from fleet_server.tenancy import ScopedSession

UNTRACKED = "skerry_untracked"
"""In the ``info`` of a table whose writes change nothing that anybody asked for."""

_CHANGES = "skerry_changes"
_MAX_ROWS = 100
_KEPT_OUT = ("hash", "sha256", "pem", "document", "secret")
"""Parts of the names of columns that are secret or that only a machine reads."""

Columns = dict[str, object]


@dataclass(slots=True)
class Changes:
    """What a session wrote so far: names of tables, and rows by table and key."""

    tables: set[str] = field(default_factory=set)
    before: dict[str, Columns] = field(default_factory=dict)
    after: dict[str, Columns] = field(default_factory=dict)


def of(session: AsyncSession) -> Changes:
    """Return what a session has written."""
    found = session.info.get(_CHANGES)
    return found if isinstance(found, Changes) else Changes()


@event.listens_for(ScopedSession, "do_orm_execute")
def _note_statement(state: ORMExecuteState) -> None:
    if (state.is_insert or state.is_update or state.is_delete) and state.bind_mapper is not None:
        _changes(state.session, state.bind_mapper.local_table)


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


def _shown(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)

"""Tenants: whose rows a piece of work reaches. The one place where queries are scoped.

Each row belongs to a tenant by one of three ways: it names the tenant (`TenantOwned`), a device
(`DeviceOwned`) or a model family (`FamilyOwned`). `ScopedSession` adds the condition to every
query, so that a service cannot forget it:

- Work of the server itself (ingest, renewal, rollouts) reaches all rows.
- A request over HTTP begins by reaching nothing. Authentication, which has to look for its caller
  everywhere, lets it in to the caller's tenant, and there is no way from there to another one.

Whatever cannot be scoped (text, tables without their classes) is refused inside of a request.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum, auto
from functools import lru_cache
from typing import cast

from sqlalchemy import Select, String, Table, TextClause, event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    UOWTransaction,
    mapped_column,
    with_loader_criteria,
)
from sqlalchemy.sql import ClauseElement, visitors
from sqlalchemy.sql.base import ExecutableOption
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet_server.errors import RefusedError
from fleet_server.tenant_names import DEFAULT as DEFAULT  # noqa: PLC0414 (others say tenancy.DEFAULT)
from fleet_server.tenant_names import MAX_NAME as MAX_NAME  # noqa: PLC0414 (others say tenancy.MAX_NAME)


class Reach(Enum):
    """What work reaches that is not inside of a tenant."""

    ALL = auto()
    NOTHING = auto()


_reach: ContextVar[str | Reach] = ContextVar("tenant", default=Reach.ALL)


class OutOfReachError(RuntimeError):
    """A query in a request cannot be scoped: a defect of the server, never the caller's."""


class Base(DeclarativeBase):
    """Base of the tables of all features."""


def current() -> str:
    """Return the tenant to which new rows belong; the server's own work is for the default one."""
    reach = _reach.get()
    if reach is Reach.NOTHING:
        raise OutOfReachError("nobody was let in yet, and a row needs an owner")
    return DEFAULT if isinstance(reach, Reach) else reach


def enter(tenant: str) -> None:
    """Let the rest of this request reach one tenant."""
    _reach.set(tenant)


@contextmanager
def everything() -> Iterator[None]:
    """Reach all rows: for finding out who asks, and for what the server keeps for all tenants."""
    before = _reach.set(Reach.ALL)
    try:
        yield
    finally:
        _reach.reset(before)


class ClosedAtFirst:
    """ASGI middleware: a request reaches nothing until it is known whose it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        before = _reach.set(Reach.NOTHING)
        try:
            await self._app(scope, receive, send)
        finally:
            _reach.reset(before)


class TenantOwned:
    """A row that names its tenant."""

    tenant: Mapped[str] = mapped_column(String(MAX_NAME), default=current, server_default=DEFAULT)


class DeviceOwned:
    """A row of a device, which it names in the column ``device_id``."""

    device_id: Mapped[str]


class FamilyOwned:
    """A row of a model family, which it names in the column ``family``."""

    family: Mapped[str]


class Tenant(Base):
    """One tenant; `skerry server tenant` makes it."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)


class FamilyOwner(Base):
    """To which tenant a model family belongs; those that are not listed are the default one's."""

    __tablename__ = "family_owners"

    family: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(MAX_NAME))


class ScopedSession(Session):
    """A session that reaches what the present work may reach."""


@event.listens_for(ScopedSession, "do_orm_execute")
def _scope_query(state: ORMExecuteState) -> None:
    reach = _reach.get()
    if reach is Reach.ALL:
        return
    statement = state.statement
    if reach is Reach.NOTHING or not state.is_orm_statement:
        _refuse_owned(cast("ClauseElement", statement))
    elif not state.is_insert:
        classes = len(Base.registry.mappers)
        state.statement = statement.options(*_conditions(str(reach), classes))


@event.listens_for(ScopedSession, "before_flush")
def _check_owner(session: Session, _context: UOWTransaction, _instances: object) -> None:
    reach = _reach.get()
    if reach is Reach.ALL:
        return
    for row in session.new:
        if isinstance(row, TenantOwned) and row.tenant not in {None, reach}:
            raise OutOfReachError(f"a row of {row.tenant} in the work of {reach}")


def families_of(tenant: str) -> Select[tuple[str]]:
    """Return the query for the families that are listed as a tenant's own."""
    owners = FamilyOwner.__table__
    return select(owners.c.family).where(owners.c.tenant == tenant)


async def owns(session: AsyncSession, family: str) -> bool:
    """Say whether a model family belongs to the tenant of this work."""
    return await owner_of(session, family) == current()


async def owner_of(session: AsyncSession, family: str) -> str:
    """Return to whom a model family belongs."""
    owner = await session.get(FamilyOwner, family)
    return owner.tenant if owner else DEFAULT


async def check_known(session: AsyncSession, tenant: str) -> None:
    """Accept the name of a tenant that was made.

    Raises:
        RefusedError: there is none of that name.
    """
    if await session.get(Tenant, tenant) is None:
        raise RefusedError(
            f"there is no tenant {tenant[:MAX_NAME]}; `skerry server tenant` makes one"
        )


@lru_cache(maxsize=256)
def _conditions(tenant: str, _classes: int) -> tuple[ExecutableOption, ...]:
    devices = Base.metadata.tables["devices"]
    of_tenant = select(devices.c.id).where(devices.c.tenant == tenant)
    listed = select(FamilyOwner.__table__.c.family)
    options = []
    for mapper in Base.registry.mappers:
        row = mapper.class_
        if issubclass(row, TenantOwned):
            condition = row.tenant == tenant
        elif issubclass(row, DeviceOwned):
            condition = row.device_id.in_(of_tenant)
        elif issubclass(row, FamilyOwned) and tenant == DEFAULT:
            condition = row.family.not_in(listed)
        elif issubclass(row, FamilyOwned):
            condition = row.family.in_(families_of(tenant))
        else:
            continue
        options.append(with_loader_criteria(row, condition, include_aliases=True))
    return tuple(options)


def _refuse_owned(statement: ClauseElement) -> None:
    for element in visitors.iterate(statement):
        if isinstance(element, TextClause) or (isinstance(element, Table) and element.columns):
            raise OutOfReachError(
                f"the query of {element} is not scoped: inside of a request, query by the mapped "
                "classes and after authentication"
            )

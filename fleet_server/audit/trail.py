"""Writes entries in the transaction of the change, and reads them.

Each change that a person or a token makes has an entry: `Database.writing` ends with `complete`,
which records what the service itself did not describe. One transaction at a time appends to a
tenant's chain, whichever process it belongs to.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import msgspec
from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import keyset, tenancy
from fleet_server.audit import changes
from fleet_server.audit.chain import BEGINNING, Entry, sealed
from fleet_server.audit.tables import AuditEntry
from fleet_server.clock import unix_ms, utc_now
from fleet_server.keyset import Order
from fleet_server.logs import request_id
from fleet_server.turns import take_turn

SERVER = "server"
"""Who acts when nobody asked for it: renewal, rollouts that go on."""

actor: ContextVar[str] = ContextVar("actor", default=SERVER)
request_line: ContextVar[str] = ContextVar("request_line", default="skerry server")

_PAGE = 500
_RECORDED = "skerry_recorded"
_FIELDS = Entry.__struct_fields__


@contextmanager
def acting(who: str) -> Iterator[None]:
    """Do the work of this block in somebody's name."""
    before = actor.set(who)
    try:
        yield
    finally:
        actor.reset(before)


async def record(  # noqa: PLR0913 (the columns of an entry)
    session: AsyncSession,
    action: str,
    subject: str,
    *,
    before: object = None,
    after: object = None,
    tenant: str | None = None,
) -> None:
    """Add an entry to the transaction of a change.

    Args:
        session: the writing session in which the change is made.
        action: what was done, such as ``device.decommission``.
        subject: to what, such as the device's id.
        before: what was there, in types that JSON has; never a secret.
        after: what is there now.
        tenant: in whose trail; without it, of whom this work is done.
    """
    owner = tenant or tenancy.current()
    await take_turn(session, f"audit of {owner}")
    last = await session.scalar(
        select(AuditEntry)
        .where(AuditEntry.tenant == owner)
        .order_by(AuditEntry.number.desc())
        .limit(1)
    )
    entry = sealed(
        Entry(
            tenant=owner,
            number=last.number + 1 if last else 1,
            at_ms=unix_ms(utc_now()),
            actor=actor.get(),
            action=action[:200],
            subject=subject,
            before=_json(before),
            after=_json(after),
            request_id=request_id.get(),
            previous_sha256=last.sha256 if last else BEGINNING,
        )
    )
    session.add(AuditEntry(**msgspec.structs.asdict(entry)))
    await session.flush()
    session.info[_RECORDED] = True


async def complete(session: AsyncSession) -> None:
    """Record what a request changed, if its service did not describe it."""
    await session.flush()
    noticed = changes.of(session)
    if not noticed.tables or session.info.get(_RECORDED) or actor.get() == SERVER:
        return
    statements = [one.described() for one in noticed.statements]
    after = noticed.after | ({"statements": statements} if statements else {})
    await record(
        session,
        request_line.get(),
        ", ".join(sorted(noticed.tables)),
        before=noticed.before or None,
        after=after or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries are wanted; of several conditions all must hold.

    Attributes:
        actor: who acted, exactly as it is written, such as ``user ann``.
        action: what was done, the same.
        since_ms: when it was written at the earliest.
        until_ms: before when.
    """

    actor: str | None = None
    action: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield them for a query."""
        if self.actor is not None:
            yield AuditEntry.actor == self.actor
        if self.action is not None:
            yield AuditEntry.action == self.action
        if self.since_ms is not None:
            yield AuditEntry.at_ms >= self.since_ms
        if self.until_ms is not None:
            yield AuditEntry.at_ms < self.until_ms


ALL = Wanted()


async def entries(  # noqa: PLR0913 (what a page is)
    session: AsyncSession,
    tenant: str,
    *,
    after: int | None = None,
    limit: int = _PAGE,
    order: Order = Order.ASCENDING,
    wanted: Wanted = ALL,
) -> list[Entry]:
    """Return entries of a tenant beyond a number, in the order of their numbers or against it."""
    query = select(AuditEntry).where(AuditEntry.tenant == tenant, *wanted.conditions())
    page = keyset.page(query, AuditEntry.number, after=after, limit=limit, order=order)
    return [_entry(row) for row in await session.scalars(page)]


async def count(session: AsyncSession, tenant: str, *, most: int, wanted: Wanted) -> int:
    """Return how many entries of a tenant there are, but no more than ``most``."""
    query = select(AuditEntry.number).where(AuditEntry.tenant == tenant, *wanted.conditions())
    return await keyset.count(session, query, most=most)


async def pages(session: AsyncSession, tenant: str) -> AsyncIterator[list[Entry]]:
    """Yield all entries of a tenant, some at a time."""
    after = None
    while page := await entries(session, tenant, after=after):
        yield page
        session.expunge_all()
        after = page[-1].number


def _entry(row: AuditEntry) -> Entry:
    return Entry(**{name: getattr(row, name) for name in _FIELDS})


def _json(content: object) -> str | None:
    return None if content is None else msgspec.json.encode(content, order="sorted").decode()


def fields(row: object, names: Iterable[str]) -> dict[str, object]:
    """Return columns of a row for ``before`` and ``after``."""
    return {name: getattr(row, name) for name in names}

"""Routes of the audit trail, for admins of the tenant."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from fleet_server import tenancy
from fleet_server.accounts.authorization import Administrator
from fleet_server.audit import chain, trail
from fleet_server.audit.trail import Wanted
from fleet_server.keyset import MAX_COUNTED, Order
from fleet_server.paging import AfterId, Cursor, InOrder, Limit, following
from fleet_server.services import Services, Wired
from fleet_server.storable import StorableText

router = APIRouter(prefix="/api/v1", tags=["audit"])

_AT_ONCE = 500
UnixMs = Annotated[int, Field(ge=0, le=2**53)]


class EntryView(BaseModel):
    """One change: who, what, before, after. Both are JSON texts, as they were hashed."""

    tenant: str
    number: int
    at_ms: int
    actor: str
    action: str
    subject: str
    before: str | None
    after: str | None
    request_id: str | None
    previous_sha256: str
    sha256: str


class AuditPage(BaseModel):
    """Some entries in the order that was asked for."""

    entries: list[EntryView]
    next_after: Cursor | None


class EntryCount(BaseModel):
    """How many entries there are."""

    entries: int
    is_capped: bool
    """There may be more: counting ended here, at 10,000."""


def _wanted(
    actor: Annotated[
        StorableText | None, Query(max_length=200, description="who, such as `user ann`")
    ] = None,
    action: Annotated[
        StorableText | None, Query(max_length=200, description="what, such as `user.create`")
    ] = None,
    since_ms: Annotated[UnixMs | None, Query(description="written then or later")] = None,
    until_ms: Annotated[UnixMs | None, Query(description="written before")] = None,
) -> Wanted:
    return Wanted(actor=actor, action=action, since_ms=since_ms, until_ms=until_ms)


Filtered = Annotated[Wanted, Depends(_wanted)]


@router.get("/audit")
async def list_entries(  # noqa: PLR0913 (each is asked for)
    *,
    services: Wired,
    account: Administrator,
    wanted: Filtered,
    after: AfterId = None,
    limit: Limit = 100,
    order: InOrder = Order.ASCENDING,
) -> AuditPage:
    """List the changes in the tenant, the oldest first unless `order` says so.

    Of several filters all must hold.

    Actors: a person is `user NAME` who logs in and `session NAME` after that, a program is
    `token NAME`, who enrols a device is `claim ID`, a command on the server itself is `local:NAME`
    with the user's name there, and what the server does by itself is `server`.
    """
    async with services.database.reading() as session:
        found = await trail.entries(
            session, account.tenant, after=after, limit=limit, order=order, wanted=wanted
        )
    return AuditPage(
        entries=[EntryView.model_validate(entry, from_attributes=True) for entry in found],
        next_after=following(found, limit, lambda row: row.number),
    )


@router.get("/audit-count")
async def count_entries(services: Wired, account: Administrator, wanted: Filtered) -> EntryCount:
    """Count the changes in the tenant, up to 10,000: `is_capped` says that there may be more."""
    async with services.database.reading() as session:
        found = await trail.count(session, account.tenant, most=MAX_COUNTED, wanted=wanted)
    return EntryCount(entries=found, is_capped=found == MAX_COUNTED)


@router.get("/audit/export", response_class=StreamingResponse)
async def export(
    services: Wired, account: Administrator, after: AfterId = None
) -> StreamingResponse:
    """Export the trail as JSON lines; see `fleet_server.audit.chain`."""
    return StreamingResponse(
        _lines(services, account.tenant, after), media_type="application/x-ndjson"
    )


async def _lines(services: Services, tenant: str, after: int | None) -> AsyncIterator[bytes]:
    while True:
        async with services.database.reading() as session:
            with tenancy.everything():  # the answer is sent after the request's own work is over
                page = await trail.entries(session, tenant, after=after, limit=_AT_ONCE)
        if not page:
            return
        yield b"".join(chain.line(entry) for entry in page)
        after = page[-1].number

"""Routes of the audit trail, for admins of the tenant."""

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from fleet_server import tenancy
from fleet_server.accounts.authorization import Administrator
from fleet_server.audit import chain, trail
from fleet_server.paging import AfterId, Limit, cursor
from fleet_server.services import Services, Wired

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])

_AT_ONCE = 500


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
    """Some entries in their order."""

    entries: list[EntryView]
    next_after: str | None


@router.get("")
async def list_entries(
    services: Wired, account: Administrator, after: AfterId = None, limit: Limit = 100
) -> AuditPage:
    """List the changes in the tenant, the oldest first."""
    async with services.database.reading() as session:
        found = await trail.entries(session, account.tenant, after=after or 0, limit=limit)
    return AuditPage(
        entries=[EntryView.model_validate(entry, from_attributes=True) for entry in found],
        next_after=cursor(found[-1].number) if len(found) == limit else None,
    )


@router.get("/export", response_class=StreamingResponse)
async def export(
    services: Wired, account: Administrator, after: AfterId = None
) -> StreamingResponse:
    """Export the trail as JSON lines; see `fleet_server.audit.chain`."""
    return StreamingResponse(
        _lines(services, account.tenant, after or 0), media_type="application/x-ndjson"
    )


async def _lines(services: Services, tenant: str, after: int) -> AsyncIterator[bytes]:
    while True:
        async with services.database.reading() as session:
            with tenancy.everything():  # the answer is sent after the request's own work is over
                page = await trail.entries(session, tenant, after=after, limit=_AT_ONCE)
        if not page:
            return
        yield b"".join(chain.line(entry) for entry in page)
        after = page[-1].number

"""Commands of the audit trail on the server itself, whether it runs or not."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.audit import chain, trail
from fleet_server.audit.chain import ChainBrokenError, Verification
from fleet_server.errors import RefusedError
from fleet_server.local_database import opened
from fleet_server.tenancy import Tenant


async def verify(root: Path, *, expected: Sequence[str]) -> dict[str, str]:
    """Check the chains of all tenants.

    Args:
        root: the data directory.
        expected: heads noted earlier, each ``TENANT=NUMBER:SHA256``.

    Returns:
        The head of each tenant's chain.

    Raises:
        ChainBrokenError: a chain does not hold, or an expected head is not part of it.
        RefusedError: an expected head cannot be read.
        SetupError: the data directory or its database cannot be used.
        UnavailableError: the database failed.
    """
    noted = dict(_parsed(head) for head in expected)
    async with opened(root) as database, database.reading() as session:
        tenants = sorted({*await session.scalars(select(Tenant.name)), *noted})
        return {tenant: await verify_tenant(session, tenant, noted) for tenant in tenants}


async def verify_tenant(session: AsyncSession, tenant: str, noted: dict[str, str]) -> str:
    """Check one chain and return its head.

    Raises:
        ChainBrokenError: it does not hold, or the noted head is not part of it.
    """
    verification = Verification()
    wanted = noted.get(tenant)
    found = wanted is None
    async for page in trail.pages(session, tenant):
        verification.take(page)
        found = found or any(f"{entry.number}:{entry.sha256}" == wanted for entry in page)
    if not found:
        raise ChainBrokenError(
            f"the trail of the tenant {tenant} does not contain the noted head {wanted}: entries "
            "were cut off or written anew"
        )
    return verification.head


async def export(root: Path, *, tenant: str, write: Callable[[bytes], object]) -> None:
    """Write a tenant's trail as JSON lines.

    Raises:
        SetupError: the data directory or its database cannot be used.
        UnavailableError: the database failed.
    """
    async with opened(root) as database, database.reading() as session:
        async for page in trail.pages(session, tenant):
            for entry in page:
                write(chain.line(entry))


def _parsed(text: str) -> tuple[str, str]:
    tenant, equals, head = text.partition("=")
    number, colon, digest = head.partition(":")
    if not (equals and colon and number.isdecimal() and digest):
        raise RefusedError(f"--expect {text[:120]!r}: use TENANT=NUMBER:SHA256")
    return tenant, head

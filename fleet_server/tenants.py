"""Makes tenants and says which model families are theirs: for the server's own command."""

import re
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_server.audit import trail
from fleet_server.errors import RefusedError
from fleet_server.local_database import opened
from fleet_server.tenancy import DEFAULT, FamilyOwner, Tenant

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


async def make(root: Path, *, name: str, families: Sequence[str]) -> list[str]:
    """Make a tenant if it is new, and give it families.

    Returns:
        The families that are listed as its own.

    Raises:
        RefusedError: a name is malformed.
        SetupError: the data directory or its database cannot be used.
        UnavailableError: the database failed.
    """
    if not _NAME.fullmatch(name):
        raise RefusedError(
            f"{name[:80]!r} cannot name a tenant: use 1 to 63 of a-z, 0-9 and hyphens, without a "
            "hyphen at either end"
        )
    for family in families:
        try:
            names.family(family)
        except ProtocolError as error:
            raise RefusedError(str(error)) from error
    async with opened(root) as database, database.writing() as session:
        await session.merge(Tenant(name=name))
        for family in families:
            owner = await session.get(FamilyOwner, family)
            if owner is not None:
                await session.delete(owner)
                await session.flush()
            if name != DEFAULT:
                session.add(FamilyOwner(family=family, tenant=name))
        await session.flush()
        listed = select(FamilyOwner.family).where(FamilyOwner.tenant == name)
        owned = sorted(await session.scalars(listed))
        await trail.record(session, "tenant.change", name, after={"families": owned}, tenant=name)
        return owned

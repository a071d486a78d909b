"""The revocation lists of the device CAs (RFC 5280, CRL): which valid certificates are refused.

It names the certificates of devices that are shut out, and those whose key a device has replaced.
A broker that has only a list knows nothing of devices that are missing in the database: their
messages go nowhere, but they are let in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import tenancy
from fleet_server.clock import unix_ms
from fleet_server.devices.certificates import DeviceCa
from fleet_server.devices.tables import Device, IssuedCertificate, PendingCertificate

LIFETIME = timedelta(days=30)
"""OpenSSL refuses everybody once the list has expired: it outlives a long absence of the server."""

_BACKDATED = timedelta(minutes=5)
"""Room for many lists in a short time, and for a broker whose clock is a little behind."""

RENEWED_AFTER = timedelta(days=1)

REPLACED_AFTER = timedelta(hours=1)
"""A key that its device let go is listed by then; each list makes the broker's checks dearer."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What the list has to say.

    Attributes:
        shut_out: serials of devices that are revoked or decommissioned.
        replaced: serials of keys that their devices have let go.
    """

    shut_out: frozenset[int]
    replaced: frozenset[int]

    @property
    def serials(self) -> Sequence[int]:
        """Return all of them, ascending."""
        return sorted(self.shut_out | self.replaced)


@dataclass(frozen=True, slots=True)
class Signed:
    """A list as it is handed out.

    Attributes:
        number: orders the lists of an authority (RFC 5280, 5.2.3).
        dated: what it says of its own age.
    """

    pem: str
    number: int
    dated: datetime


def signed(
    authority: DeviceCa, serials: Sequence[int], *, before: Signed | None, now: datetime
) -> Signed:
    """Sign a list that takes the place of the one before.

    It names all certificates, also those of other authorities: their numbers are random, and while
    there are several authorities who issued which is of no interest. Of two lists OpenSSL takes the
    one that is newer by a second at least; one from the future makes it refuse everybody. So the
    date is bounded by the clock, and only the number never goes back.
    """
    newer = before.dated + timedelta(seconds=1) if before else now - _BACKDATED
    dated = min(now, max(now - _BACKDATED, newer)).replace(microsecond=0)
    number = max(int(dated.timestamp()), before.number + 1 if before else 0)
    made = authority.revocation_list(serials, number=number, now=dated, until=now + LIFETIME)
    return Signed(made.public_bytes(Encoding.PEM).decode(), number, dated)


def listed(pem: str) -> frozenset[int]:
    """Return the serials on a list."""
    return frozenset(each.serial_number for each in x509.load_pem_x509_crl(pem.encode()))


def is_shut_out() -> ColumnElement[bool]:
    """Return the condition for devices that an admin has shut out."""
    return or_(Device.revoked_ms.is_not(None), Device.decommissioned_ms.is_not(None))


async def revoked(session: AsyncSession, *, now: datetime) -> Revoked:
    """Ask the database what the lists have to say, for all tenants."""
    shut_out = is_shut_out()
    pending = select(PendingCertificate.certificate_serial)
    query = (
        select(IssuedCertificate.serial, shut_out)
        .join(Device, Device.id == IssuedCertificate.device_id)
        .where(
            IssuedCertificate.expires_ms > unix_ms(now),
            or_(shut_out, IssuedCertificate.public_key_sha256 != Device.public_key_sha256),
            or_(shut_out, IssuedCertificate.serial.not_in(pending)),
        )
    )
    with tenancy.everything():
        rows = [(int(serial, 16), out) for serial, out in await session.execute(query)]
    return Revoked(
        frozenset(serial for serial, out in rows if out),
        frozenset(serial for serial, out in rows if not out),
    )


async def shut_out_devices(session: AsyncSession, *, now: datetime) -> list[str]:
    """Return the devices of all tenants that may still have a session and must have none."""
    recently = unix_ms(now - LIFETIME)
    query = select(Device.id).where(
        Device.certificate_expires_ms > recently,
        or_(is_shut_out(), Device.certificate_expires_ms <= unix_ms(now)),
    )
    with tenancy.everything():
        return list(await session.scalars(query.order_by(Device.id)))

"""The revocation lists of the device CAs (RFC 5280, CRL): which valid certificates are refused.

It names the certificates of devices that are shut out, and those whose key a device has replaced.
A broker that has only a list knows nothing of devices that are missing in the database: their
messages go nowhere, but they are let in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import ColumnElement, or_, select

from fleet_server import tenancy
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.devices.certificates import DeviceCa
from fleet_server.devices.tables import Device, IssuedCertificate, PendingCertificate
from fleet_server.releases import durable_files

LIFETIME = timedelta(days=30)
"""OpenSSL refuses everybody once the list has expired: it outlives a long absence of the server."""

_BACKDATED = timedelta(minutes=5)
"""Room for many lists in a short time, and for a broker whose clock is a little behind."""

RENEWED_AFTER = timedelta(days=1)


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


def write(
    path: Path, authorities: Sequence[DeviceCa], serials: Sequence[int], *, now: datetime
) -> None:
    """Sign a list for each authority and put them, in one file, in place of the present ones.

    Each names all certificates, also those of the others: their numbers are random, and while
    there are several authorities who issued which is of no interest.

    Raises:
        OSError: the disk refuses; the old list is unchanged.
    """
    # Of two lists OpenSSL takes the one that is newer by a second at least; one from the future
    # makes it refuse everybody.
    newer = last_update(path) + timedelta(seconds=1)
    dated = min(now, max(now - _BACKDATED, newer)).replace(microsecond=0)
    until = now + LIFETIME
    signed = [each.revocation_list(serials, now=dated, until=until) for each in authorities]
    durable_files.write(path, b"".join(each.public_bytes(Encoding.PEM) for each in signed))


def last_update(path: Path) -> datetime:
    """Return when the list in a file was signed; long ago if there is none."""
    try:
        return x509.load_pem_x509_crl(path.read_bytes()).last_update_utc
    except (OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)


def is_shut_out() -> ColumnElement[bool]:
    """Return the condition for devices that an admin has shut out."""
    return or_(Device.revoked_ms.is_not(None), Device.decommissioned_ms.is_not(None))


async def revoked(database: Database, *, now: datetime) -> Revoked:
    """Ask the database what the list has to say.

    Raises:
        UnavailableError: the database failed.
    """
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
        async with database.reading() as session:
            rows = [(int(serial, 16), out) for serial, out in await session.execute(query)]
    return Revoked(
        frozenset(serial for serial, out in rows if out),
        frozenset(serial for serial, out in rows if not out),
    )

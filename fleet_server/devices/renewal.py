"""Renewal of device certificates: the old one serves until the device holds the new one.

1. A device asks with a token signed with its present key; the answer is kept, so that a device that
   lost it and asks again with the same key for it gets the same certificate.
2. It stores key and certificate durably, then confirms with a token signed with the new key. Only
   a holder of the new key can, and only it makes the server let the old key go.
3. A confirmation that was lost on the way back may be repeated.
"""

import logging
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol import messages
from fleet_protocol.messages import ConfirmRequest
from fleet_server import tenancy
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices import certificates, changes
from fleet_server.devices.certificates import Issuer, RequestedKey, read_request
from fleet_server.devices.registry import refusal
from fleet_server.devices.tables import Device, IssuedCertificate, PendingCertificate
from fleet_server.devices.tokens import device_key, unverified_device_id, verify_device_token
from fleet_server.errors import ConflictError, NotAuthenticatedError

logger = logging.getLogger(__name__)

REPEATABLE = timedelta(days=1)
"""How long the answer to a request for the same key stays the same."""


class Renewal:
    """Renews the certificates of one database."""

    def __init__(self, *, database: Database, ca: Issuer, clock: Clock) -> None:
        self._database = database
        self._ca = ca
        self._clock = clock

    async def request(self, device_id: str, *, csr_pem: str) -> str:
        """Return a new certificate (PEM) for a device that has shown its present key.

        Raises:
            MalformedError: the certificate request cannot be read.
            RefusedError: the request's signature or key is wrong.
            NotAuthenticatedError: the device is shut out meanwhile.
            UnavailableError: the database failed.
        """
        key = read_request(csr_pem)
        async with self._database.writing() as session:
            device = await session.get(Device, device_id, with_for_update=True)
            if device is None or refusal(device, now_ms=unix_ms(self._clock())) is not None:
                raise NotAuthenticatedError(f"the device {device_id} is shut out")
            pending = await session.get(PendingCertificate, device_id)
            if pending is not None and self._is_repeatable(pending, key):
                return pending.certificate_pem
            issued = self._ca.issue(device_id=device_id, key=key, now=self._clock())
            await session.merge(self._pending(device_id, key, issued))
            session.add(issued_row(device_id, key.sha256, issued))
        logger.info("certificate_renewed", extra={"device": device_id, "key": key.sha256[:16]})
        return issued.pem

    async def confirm(self, token: str | None, *, body: bytes) -> None:
        """Take a device's word, signed with its new key, that it holds its new certificate.

        Args:
            token: of the request.
            body: a `ConfirmRequest`.

        Raises:
            ProtocolError: the body is none.
            NotAuthenticatedError: the token is not signed with the key of that certificate, or the
                device is shut out.
            ConflictError: the certificate is neither pending nor the device's present one.
            UnavailableError: the database failed.
        """
        if not token:
            raise NotAuthenticatedError("send a token that is signed with the new key")
        device_id = unverified_device_id(token)
        serial = messages.decode(body, ConfirmRequest).serial
        with tenancy.everything():
            await self._confirm(token, device_id, serial)
        logger.info("certificate_confirmed", extra={"device": device_id, "serial": serial})

    async def _confirm(self, token: str, device_id: str, serial: str) -> None:
        now = self._clock()
        async with self._database.writing() as session:
            device = await session.get(Device, device_id, with_for_update=True)
            if device is None or device.decommissioned_ms or device.revoked_ms:
                raise NotAuthenticatedError(f"the device {device_id} is shut out")
            if device.certificate_serial == serial:
                verify_device_token(token, key=device_key(device.public_key_pem), now=now)
                return
            pending = await session.get(PendingCertificate, device_id)
            if pending is None or pending.certificate_serial != serial:
                raise ConflictError(
                    f"the certificate {serial} is not the newest of {device_id}: renew again"
                )
            verify_device_token(token, key=device_key(pending.public_key_pem), now=now)
            await _promote(session, device, pending)

    def _is_repeatable(self, pending: PendingCertificate, key: RequestedKey) -> bool:
        age_ms = unix_ms(self._clock()) - pending.issued_ms
        return (
            pending.public_key_sha256 == key.sha256 and age_ms < REPEATABLE.total_seconds() * 1000
        )

    def _pending(
        self, device_id: str, key: RequestedKey, certificate: certificates.IssuedCertificate
    ) -> PendingCertificate:
        return PendingCertificate(
            device_id=device_id,
            public_key_pem=key.pem,
            public_key_sha256=key.sha256,
            certificate_pem=certificate.pem,
            certificate_serial=certificate.serial,
            certificate_expires_ms=unix_ms(certificate.expires),
            issued_ms=unix_ms(self._clock()),
        )


def issued_row(
    device_id: str, public_key_sha256: str, source: certificates.IssuedCertificate
) -> IssuedCertificate:
    """Return the row that remembers a certificate."""
    return IssuedCertificate(
        serial=source.serial,
        device_id=device_id,
        public_key_sha256=public_key_sha256,
        expires_ms=unix_ms(source.expires),
        issuer=source.issuer,
    )


async def _promote(session: AsyncSession, device: Device, pending: PendingCertificate) -> None:
    device.public_key_pem = pending.public_key_pem
    device.public_key_sha256 = pending.public_key_sha256
    device.certificate_pem = pending.certificate_pem
    device.certificate_serial = pending.certificate_serial
    device.certificate_expires_ms = pending.certificate_expires_ms
    await session.delete(pending)
    await session.flush()
    await changes.record(session, [device.id])

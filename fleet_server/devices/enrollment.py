"""Enrolment: a one-time claim and a certificate request go in, a certificate comes out.

The steps, each with the attack that it stops:

1. The claim token is verified against the claim key (a stranger enrols a device).
2. The request's signature is verified (someone enrols a key that another one holds).
3. Token, device and certificate are stored in one transaction that starts as a writer (two
   requests race with one token).
4. The same token with the same key gets the stored certificate again (an answer was lost); with
   another key it is refused (a claim was copied from the device's disk).
5. A device id that is enrolled is refused to every other claim (an old device is taken over),
   unless the holder of the claim key signed that the claim replaces what was before: so a device
   comes back whose certificate expired, whose key was revoked, or whose disk was lost.
"""

import logging

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import tenancy
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.devices import attributes, changes, terms
from fleet_server.devices.certificates import IssuedCertificate, Issuer, RequestedKey, read_request
from fleet_server.devices.renewal import issued_row
from fleet_server.devices.tables import BurntClaim, Device, PendingCertificate
from fleet_server.devices.tokens import Claim, ClaimVerifier
from fleet_server.errors import ConflictError, NotPermittedError

logger = logging.getLogger(__name__)


class Enrollment:
    """Enrols devices."""

    def __init__(
        self, *, database: Database, verifier: ClaimVerifier, ca: Issuer, clock: Clock
    ) -> None:
        self._database = database
        self._verifier = verifier
        self._ca = ca
        self._clock = clock

    async def enroll(self, *, token: str, csr_pem: str) -> Device:
        """Enrol the device that the token names; see the module for the steps.

        Raises:
            NotAuthenticatedError: the token is expired, foreign or malformed.
            MalformedError: the certificate request cannot be read.
            RefusedError: the request's signature or key is wrong, or the tenant is not known.
            ConflictError: the token was used with another key, or the device id is taken.
            NotPermittedError: the device was decommissioned.
            UnavailableError: the database failed.
        """
        claim = self._verifier.verify(token, now=self._clock())  # (1)
        key = read_request(csr_pem)  # (2)
        with tenancy.everything(), trail.acting(f"claim {claim.jti}"):
            return await self._enroll(claim, key, token)

    async def _enroll(self, claim: Claim, key: RequestedKey, token: str) -> Device:
        async with self._database.writing() as session:  # (3)
            await take_turn(session, f"enrolment of {claim.device_id}")
            burnt = await session.get(BurntClaim, claim.jti)
            if burnt is not None:
                return await self._again(session, burnt, claim, key)  # (4)
            present = await session.get(Device, claim.device_id, with_for_update=True)
            if present is not None:
                _check_replaces(present, claim)  # (5)
            await tenancy.check_known(session, claim.tenant)
            device = present or Device(id=claim.device_id, tenant=claim.tenant)
            certificate = self._issue(device, key)
            device.claim = token
            await self._store(session, device, claim, certificate)
            await trail.record(
                session,
                "device.enroll",
                device.id,
                after={"key": key.sha256, "claim": claim.jti},
                tenant=device.tenant,
            )
            session.add(
                BurntClaim(
                    jti=claim.jti,
                    device_id=claim.device_id,
                    public_key_sha256=key.sha256,
                    burnt_ms=unix_ms(self._clock()),
                )
            )
            await session.flush()
            await changes.record(session, [device.id])
        logger.info("device_enrolled", extra={"device": device.id, "key": key.sha256[:16]})
        return device

    async def _again(
        self, session: AsyncSession, burnt: BurntClaim, claim: Claim, key: RequestedKey
    ) -> Device:
        device = await session.get(Device, burnt.device_id)
        known = (burnt.device_id, burnt.public_key_sha256)
        if device is None or known != (claim.device_id, key.sha256):
            logger.warning("claim_reused", extra={"device": claim.device_id})
            raise ConflictError(
                f"the claim of {claim.device_id} was used already, with another key; "
                "make a new claim with `skerry provision claim`"
            )
        _check_in_service(device)
        if device.public_key_sha256 != key.sha256 or device.revoked_ms is not None:
            raise ConflictError(
                f"the device {device.id} has another key since; make a new claim with "
                "`skerry provision claim --replace`"
            )
        return device

    def _issue(self, device: Device, key: RequestedKey) -> IssuedCertificate:
        now = self._clock()
        certificate = self._ca.issue(device_id=device.id, key=key, now=now)
        device.public_key_pem = key.pem
        device.public_key_sha256 = key.sha256
        device.certificate_pem = certificate.pem
        device.certificate_serial = certificate.serial
        device.certificate_expires_ms = unix_ms(certificate.expires)
        device.enrolled_ms = unix_ms(now)
        device.revoked_ms = None
        device.fleet_ca = None
        device.online = False
        return certificate

    async def _store(
        self, session: AsyncSession, device: Device, claim: Claim, certificate: IssuedCertificate
    ) -> None:
        """Store a device that was made or replaced, with the labels of its claim."""
        device.labels = device.labels or attributes.encode({})
        device.facts = device.facts or attributes.encode({})
        session.add(device)
        await session.flush()
        await terms.add(session, device)
        labels = attributes.changed_labels(attributes.decode_labels(device.labels), claim.labels)
        await terms.set_labels(session, device, labels)
        await session.execute(
            delete(PendingCertificate).where(PendingCertificate.device_id == device.id)
        )
        session.add(issued_row(device.id, device.public_key_sha256, certificate))


def _check_replaces(device: Device, claim: Claim) -> None:
    _check_in_service(device)
    if not claim.replaces:
        raise ConflictError(
            f"the device {device.id} is enrolled already, with another claim; give a new device "
            "a claim with a name of its own, or make a claim with `skerry provision claim "
            "--replace` if this is the same one"
        )
    if device.tenant != claim.tenant:
        raise ConflictError(f"the device {device.id} belongs to another tenant than the claim")


def _check_in_service(device: Device) -> None:
    if device.decommissioned_ms is not None:
        raise NotPermittedError(f"the device {device.id} was decommissioned")

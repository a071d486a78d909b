"""Enrolment: a one-time claim and a certificate request go in, a certificate comes out.

The steps, each with the attack that it stops:

1. The claim token is verified against the claim key (a stranger enrols a device).
2. The request's signature is verified (someone enrols a key that another one holds).
3. Token, device and certificate are stored in one transaction that starts as a writer (two
   requests race with one token).
4. The same token with the same key gets the stored certificate again (an answer was lost); with
   another key it is refused (a claim was copied from the device's disk).
5. A device id that is enrolled is refused to every other claim (an old device is taken over).
"""

import logging

from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import tenancy
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.devices import attributes
from fleet_server.devices.certificates import DeviceCa, RequestedKey, read_request
from fleet_server.devices.tables import BurntClaim, Device
from fleet_server.devices.tokens import Claim, ClaimVerifier
from fleet_server.errors import ConflictError, NotPermittedError

logger = logging.getLogger(__name__)


class Enrollment:
    """Enrols devices."""

    def __init__(
        self, *, database: Database, verifier: ClaimVerifier, ca: DeviceCa, clock: Clock
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
        with tenancy.everything():
            return await self._enroll(claim, key)

    async def _enroll(self, claim: Claim, key: RequestedKey) -> Device:
        async with self._database.writing() as session:  # (3)
            await take_turn(session, f"enrolment of {claim.device_id}")
            burnt = await session.get(BurntClaim, claim.jti)
            if burnt is not None:
                return await self._again(session, burnt, claim, key)  # (4)
            if await session.get(Device, claim.device_id) is not None:  # (5)
                raise ConflictError(
                    f"the device {claim.device_id} is enrolled already, with another claim; "
                    "give the new device a claim with a name of its own"
                )
            await tenancy.check_known(session, claim.tenant)
            device = self._issue(claim, key)
            session.add(device)
            await session.flush()
            session.add(
                BurntClaim(
                    jti=claim.jti,
                    device_id=claim.device_id,
                    public_key_sha256=key.sha256,
                    burnt_ms=device.enrolled_ms,
                )
            )
        logger.info("device_enrolled", extra={"device": device.id, "key": key.sha256[:16]})
        return device

    async def _again(
        self, session: AsyncSession, burnt: BurntClaim, claim: Claim, key: RequestedKey
    ) -> Device:
        device = await session.get(Device, burnt.device_id)
        if device is None or (burnt.device_id, burnt.public_key_sha256) != (
            claim.device_id,
            key.sha256,
        ):
            logger.warning("claim_reused", extra={"device": claim.device_id})
            raise ConflictError(
                f"the claim of {claim.device_id} was used already, with another key; "
                "make a new claim with `skerry provision claim`"
            )
        if device.decommissioned_ms is not None:
            raise NotPermittedError(f"the device {device.id} was decommissioned")
        return device

    def _issue(self, claim: Claim, key: RequestedKey) -> Device:
        now = self._clock()
        certificate = self._ca.issue(device_id=claim.device_id, key=key, now=now)
        return Device(
            id=claim.device_id,
            tenant=claim.tenant,
            public_key_pem=key.pem,
            public_key_sha256=key.sha256,
            certificate_pem=certificate.pem,
            certificate_serial=certificate.serial,
            certificate_expires_ms=unix_ms(certificate.expires),
            enrolled_ms=unix_ms(now),
            decommissioned_ms=None,
            online=False,
            last_seen_ms=None,
            reported=None,
            labels=attributes.encode({}),
            facts=attributes.encode({}),
        )

"""Answers devices that poll for their assignment, mostly from memory.

A fleet polls far more often than its assignments change. Of each device that polls, this keeps the
ETag of its newest assignment and its public key, and of each token that was verified who signed it
and until when it counts. What is kept is coherent with the database:

- It is forgotten when the device changes: at once if this process shuts it out, otherwise with the
  next look at the log of changes, every `LOOK_S`.
- What was read while a change came in is not kept.
- If the log could not be read for `STALE_S`, nothing is answered from memory until it can be.

So an answer is at most about `LOOK_S` old, and never older than `STALE_S`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from joserfc.jwk import ECKey
from sqlalchemy import update

from fleet_protocol import assignments
from fleet_server import tenancy
from fleet_server.assignments.tables import Assignment
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices import changes
from fleet_server.devices.registry import refusal
from fleet_server.devices.tables import Device
from fleet_server.devices.tokens import device_key, unverified_device_id, verify_device_token
from fleet_server.errors import FleetError, NotAuthenticatedError

logger = logging.getLogger(__name__)

PATH = assignments.POLL_ROUTE
LOOK_S = 0.5
STALE_S = 5.0
SEEN_S = 30.0
"""How often the moments at which devices were heard are written down."""

MAX_KEPT = 200_000
"""Devices, and tokens; beyond it all of them are read anew."""

_AT_ONCE = 500
_NOTHING = assignments.etag("nothing")


@dataclass(frozen=True, slots=True)
class Document:
    """A device's newest assignment; ``content`` is None while it has none."""

    etag: str
    content: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What is kept of a device."""

    etag: bytes
    key: ECKey
    public_key_sha256: str
    certificate_expires_ms: int


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token whose signature was found good."""

    device_id: str
    public_key_sha256: str
    until_ms: int


class Polls:
    """The polls of one process."""

    def __init__(self, *, database: Database, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._devices: dict[str, _Kept] = {}
        self._tokens: dict[bytes, _Verified] = {}
        self._seen: dict[str, int] = {}
        self._number = -changes.KEPT
        self._changes = 0
        """Counts what was forgotten, so that a reader knows whether something was meanwhile."""
        self._coherent_until = float("-inf")

    @property
    def path(self) -> bytes:
        """The route's path."""
        return PATH.encode()

    def not_modified(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """Return the ETag with which 304 is the answer to these headers of a request; else None.

        None is no refusal: whatever cannot be said from memory is asked of `newest`.
        """
        if self._monotonic() > self._coherent_until:
            return None
        authorization = etag = b""
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"if-none-match":
                etag = value
        device_id = self._signer(authorization)
        kept = self._devices.get(device_id)
        if kept is None or kept.etag != etag:
            return None
        now_ms = unix_ms(self._clock())
        if kept.certificate_expires_ms <= now_ms:
            return None
        self._seen[device_id] = now_ms
        return kept.etag

    async def newest(self, token: str | None) -> Document:
        """Return the newest assignment of the device that signed a token.

        Raises:
            NotAuthenticatedError: no valid token of a device that is let in.
            UnavailableError: the database failed.
        """
        if not token:
            raise NotAuthenticatedError("send a device token: a JWT signed with the device's key")
        device_id, before = unverified_device_id(token), self._changes
        with tenancy.everything():
            async with self._database.reading() as session:
                device = await session.get(Device, device_id)
                assignment = await session.get(Assignment, device_id)
        if device is None:
            raise NotAuthenticatedError(f"the device {device_id} is not enrolled here")
        now = self._clock()
        reason = refusal(device, now_ms=unix_ms(now))
        if reason is not None:
            raise NotAuthenticatedError(f"the device {device_id} is shut out: {reason}")
        key = device_key(device.public_key_pem)
        expires_s = verify_device_token(token, key=key, now=now)
        document = _document(assignment)
        if self._changes == before:
            self._keep(device, key, document, token, expires_s)
        self._seen[device_id] = unix_ms(now)
        return document

    async def disconnect(self, device_id: str) -> None:
        """Forget a device that this process shuts out."""
        self._changes += 1
        self._devices.pop(device_id, None)

    async def run(self) -> None:
        """Follow the changes and write down who was heard, until cancelled."""
        seen_at = self._monotonic()
        while True:
            try:
                await self.look()
                if self._monotonic() - seen_at >= SEEN_S:
                    seen_at = self._monotonic()
                    await self.write_seen()
            except FleetError as error:
                logger.warning("polls_not_followed", extra={"reason": str(error)})
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Forget what changed since the last call.

        Raises:
            UnavailableError: the database failed.
        """
        began = self._monotonic()
        async with self._database.reading() as session:
            changed = await changes.since(session, self._number)
        self._coherent_until = began + STALE_S
        if changed.number == self._number:
            return
        self._number = changed.number
        self._changes += 1
        if changed.devices is None:
            self._devices.clear()
        else:
            for device_id in changed.devices:
                self._devices.pop(device_id, None)

    async def write_seen(self) -> None:
        """Write down who was heard, and drop tokens that have expired.

        Raises:
            UnavailableError: the database failed; what was not written is written the next time.
        """
        now_ms = unix_ms(self._clock())
        self._tokens = {key: kept for key, kept in self._tokens.items() if kept.until_ms > now_ms}
        ids = sorted(self._seen)
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            async with self._database.writing() as session:
                await session.execute(
                    update(Device)
                    .where(Device.id.in_(some), Device.decommissioned_ms.is_(None))
                    .values(last_seen_ms=now_ms, silent=False)
                )
            for device_id in some:
                self._seen.pop(device_id, None)

    def _signer(self, authorization: bytes) -> str:
        """Return the device whose token this is; empty if that cannot be said from memory."""
        verified, now = self._tokens.get(authorization), self._clock()
        if verified is not None and verified.until_ms > unix_ms(now):
            kept = self._devices.get(verified.device_id)
            same = kept is not None and kept.public_key_sha256 == verified.public_key_sha256
            return verified.device_id if same else ""
        try:
            scheme, _, token = authorization.decode("ascii").partition(" ")
            device_id = unverified_device_id(token) if scheme == "Bearer" else ""
            kept = self._devices.get(device_id)
            if kept is None:
                return ""
            expires_s = verify_device_token(token, key=kept.key, now=now)
        except (NotAuthenticatedError, UnicodeDecodeError):
            return ""  # the slow way says what is wrong
        self._remember(token, device_id, kept.public_key_sha256, expires_s)
        return device_id

    def _keep(
        self, device: Device, key: ECKey, document: Document, token: str, expires_s: int
    ) -> None:
        if len(self._devices) >= MAX_KEPT:
            self._devices.clear()
        self._devices[device.id] = _Kept(
            etag=document.etag.encode(),
            key=key,
            public_key_sha256=device.public_key_sha256,
            certificate_expires_ms=device.certificate_expires_ms,
        )
        self._remember(token, device.id, device.public_key_sha256, expires_s)

    def _remember(self, token: str, device_id: str, public_key_sha256: str, expires_s: int) -> None:
        if len(self._tokens) >= MAX_KEPT:
            self._tokens.clear()
        verified = _Verified(device_id, public_key_sha256, expires_s * 1000)
        self._tokens[b"Bearer " + token.encode()] = verified


def _document(assignment: Assignment | None) -> Document:
    if assignment is None:
        return Document(_NOTHING, None)
    digest = hashlib.sha256(assignment.document).hexdigest()
    return Document(assignments.etag(digest), assignment.document)

"""Renews the device's certificate before it expires; the old one holds until the new one is proven.

It is renewed early, too, when another CA issues than the one that issued it.

The steps, and what a start after a crash right behind each of them does:

1. A new key is stored in the folder of the next pair: it is used again.
2. The server's certificate for it is stored beside: step 3.
3. The server is told so with a token signed with the new key, and lets the old key go: told again.
4. The file ``generation`` names the new pair: nothing is left to do.

Until step 3 the old pair is the valid one, and the device keeps using it until step 4.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509

from edge_agent import identity, store
from edge_agent.control.backoff import Backoff
from edge_agent.control.clock import Clock
from edge_agent.control.server_client import DeviceTokens, ServerRefusedError
from edge_agent.errors import AgentError
from edge_agent.identity_files import IdentityError, IdentityFiles, KeyPair
from edge_agent.pid_file import PidFile
from fleet_protocol.messages import ConfirmRequest, RenewRequest, RenewResponse, decode, encode

logger = logging.getLogger(__name__)

RENEW_ROUTE = "/device/v1/certificate"
CONFIRM_ROUTE = "/device/v1/certificate/confirm"

_LOOK_S = 60.0
"""How often the clock and the identity's files are looked at."""

_CONFLICT = 409
_JITTER = 1 / 12
"""Of the lifetime, so that devices enrolled together do not come back together."""


class CertificateServer(Protocol):
    """Who signs certificates."""

    def post(self, path: str, body: bytes, *, tokens: DeviceTokens | None = None) -> bytes:
        """Send JSON, signed with the present key or another one, and return the answer's body.

        Raises:
            ServerUnreachableError: no answer.
            ServerRefusedError: a refusal.
        """


def due(certificate: x509.Certificate) -> datetime:
    """Return when a certificate is to be renewed: at 2/3 of its life, or somewhat later."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    digest = hashlib.sha256(str(certificate.serial_number).encode()).digest()
    fraction = int.from_bytes(digest[:4]) / 2**32
    return begin + (end - begin) * (2 / 3 + _JITTER * fraction)


class Renewal:
    """Keeps one device's certificate fresh."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        files: IdentityFiles,
        lock: Path,
        device_id: str,
        server: CertificateServer,
        clock: Clock,
        tokens: DeviceTokens,
        renewed: Callable[[], None],
    ) -> None:
        """Make it; nothing is read yet.

        Args:
            files: the identity.
            lock: pid file that whoever writes the identity holds.
            device_id: name of the device.
            server: the fleet server.
            clock: the machine's.
            tokens: what signs the requests of the whole process; gets the new key.
            renewed: called when another pair holds.
        """
        self._files = files
        self._lock = lock
        self._device_id = device_id
        self._server = server
        self._clock = clock
        self._tokens = tokens
        self._renewed = renewed
        self._generation: int | None = None
        self._expiry_logged = False
        self._issuer: str | None = None

    def issued_by(self, key_id: str) -> None:
        """Renew, once, a certificate that is of another CA than the one with this key."""
        self._issuer = key_id

    async def run(self, *, backoff: Backoff) -> None:
        """Look again and again, until cancelled."""
        while True:
            pause_s = _LOOK_S
            try:
                moved = await asyncio.to_thread(self.look)
            except AgentError as error:
                pause_s = backoff.next_s()
                logger.warning("certificate_not_renewed", extra={"reason": str(error)})
            else:
                backoff.reset()
                if moved:
                    self._renewed()
            await asyncio.sleep(pause_s)

    def look(self) -> bool:
        """Renew if it is time, finish what was begun, take over a new pair.

        Returns:
            Whether another pair holds than when this was called last.

        Raises:
            AgentError: it could not be done now; the present pair goes on to hold.
        """
        if self._generation is None:
            self._generation = self._files.generation
        follower = self._files.pair(self._files.generation + 1)
        if follower.certificate.exists() or self._is_due():
            lock = PidFile(self._lock)
            try:
                self._renew()
                self._issuer = None  # asked for and done, whoever the new one is of
            finally:
                lock.release()
        return self._take_over()

    def _take_over(self) -> bool:
        generation = self._files.generation
        if generation == self._generation:
            return False
        self._tokens.use(identity.load_key(self._files.key))
        self._generation = generation
        self._expiry_logged = False
        logger.info("certificate_in_use", extra={"generation": generation})
        return True

    def _is_due(self) -> bool:
        certificate = _read(self._files.certificate)
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        if now > certificate.not_valid_after_utc + timedelta(seconds=1):
            self._complain(certificate)
            return False
        return now >= due(certificate) or self._is_of_another(certificate)

    def _is_of_another(self, certificate: x509.Certificate) -> bool:
        return self._issuer not in {None, _issuer_key_id(certificate)}

    def _complain(self, certificate: x509.Certificate) -> None:
        if not self._expiry_logged:
            self._expiry_logged = True
            logger.error(
                "certificate_expired",
                extra={
                    "expired_at": certificate.not_valid_after_utc.isoformat(),
                    "remedy": "make a claim with `skerry provision claim --replace` and enrol this "
                    "device again with it; the models go on",
                },
            )

    def _renew(self) -> None:
        self._files.settle()
        pair = self._files.next_pair()
        key = identity.ensure_key(pair.key)  # (1)
        if not pair.certificate.exists():
            csr = identity.certificate_request(key, self._device_id)
            request = encode(RenewRequest(csr_pem=csr))
            answer = decode(self._server.post(RENEW_ROUTE, request), RenewResponse)
            identity.check_certificate(answer.certificate_pem, key, self._device_id)
            store.write_file(pair.certificate, answer.certificate_pem.encode())  # (2)
        self._confirm(pair)  # (3)
        self._files.advance()  # (4)
        logger.info("certificate_renewed")

    def _confirm(self, pair: KeyPair) -> None:
        certificate = identity.check_certificate(
            pair.certificate.read_text(), identity.load_key(pair.key), self._device_id
        )
        request = encode(ConfirmRequest(serial=f"{certificate.serial_number:x}"))
        tokens = DeviceTokens(
            device_id=self._device_id, key=identity.load_key(pair.key), clock=self._clock
        )
        try:
            self._server.post(CONFIRM_ROUTE, request, tokens=tokens)
        except ServerRefusedError as error:
            if error.status == _CONFLICT:  # the server holds neither this one nor its key
                store.remove_file(pair.certificate)
            raise


def _issuer_key_id(certificate: x509.Certificate) -> str:
    try:
        named = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return ""
    return (named.value.key_identifier or b"").hex()


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IdentityError(f"cannot read the device's certificate {path}: {error}") from error

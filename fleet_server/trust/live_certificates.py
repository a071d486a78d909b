"""The certificates that the running server shows: renewed ones are taken without a restart.

Python's TLS contexts take a new certificate for the handshakes to come; connections that are open
go on. The server's own certificate comes from the holders of the fleet CA, who are offline; the
certificate of the ingest service is signed by the device CA, which is here.
"""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from fleet_server.clock import Clock
from fleet_server.devices.authorities import DeviceCas
from fleet_server.devices.certificates import LIFETIME as INGEST_LIFETIME
from fleet_server.devices.certificates import issuer_key_id
from fleet_server.errors import RefusedError, SetupError
from fleet_server.releases import durable_files
from fleet_server.trust.fleet_cas import FleetCas, certificates_file, issuer_of

logger = logging.getLogger(__name__)

_LOOK_S = 5.0
_FLEET_CA = "fleet-ca"


class LiveCertificates:
    """Watches the files and hands their content to the TLS contexts."""

    def __init__(
        self, *, online: Path, serving: Sequence[ssl.SSLContext], ingest: ssl.SSLContext
    ) -> None:
        """Take the contexts.

        Args:
            online: where the certificates and their keys lie.
            serving: contexts of HTTPS and broker.
            ingest: context of the ingest service as a client of the broker.
        """
        self._contexts = {"tls": [*serving], "ingest": [ingest]}
        self._online = online
        self._seen = {name: self._stamp(name) for name in (*self._contexts, _FLEET_CA)}

    async def run(self) -> None:
        """Take new certificates until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.take)

    def take(self) -> None:
        """Load what has changed; a certificate that cannot be used is logged and left."""
        self._take_fleet_ca()
        for name, contexts in self._contexts.items():
            stamp = self._stamp(name)
            if stamp == self._seen[name]:
                continue
            self._seen[name] = stamp
            certificate, key = self._online / f"{name}.crt", self._online / f"{name}.pem"
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
                for context in contexts:
                    context.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                logger.error(  # noqa: TRY400 (expected, and said in one sentence)
                    "certificate_not_taken", extra={"file": str(certificate), "reason": str(error)}
                )
            else:
                logger.info("certificate_taken", extra={"file": str(certificate)})

    def _take_fleet_ca(self) -> None:
        """Let the ingest service trust the fleet CAs that the broker's certificate may be of."""
        stamp, path = self._stamp(_FLEET_CA), certificates_file(self._online)
        if stamp == self._seen[_FLEET_CA]:
            return
        self._seen[_FLEET_CA] = stamp
        try:
            for context in self._contexts["ingest"]:
                context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            logger.error(  # noqa: TRY400 (expected, and said in one sentence)
                "certificate_not_taken", extra={"file": str(path), "reason": str(error)}
            )

    def _stamp(self, name: str) -> tuple[int, int]:
        try:
            found = (self._online / f"{name}.crt").stat()
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)


def renew_ingest(online: Path, cas: DeviceCas, clock: Clock) -> bool:
    """Sign the certificate of the ingest service anew near its end and when there is a new CA.

    Returns:
        Whether it did.

    Raises:
        SetupError: key or certificate cannot be read.
        OSError: the disk refuses.
    """
    path, now = online / "ingest.crt", clock()
    present = _certificate(path)
    if (
        present.not_valid_after_utc - now > INGEST_LIFETIME / 2
        and issuer_key_id(present) == cas.issuing.key_id
    ):
        return False
    try:
        key = load_pem_private_key((online / "ingest.pem").read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SetupError(f"cannot read the key of the ingest service: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SetupError("the key of the ingest service is not an elliptic-curve key")
    durable_files.write(path, cas.issue_ingest(key.public_key(), now=now).pem.encode())
    logger.info("ingest_certificate_renewed")
    return True


def check_renewed(online: Path, certificate_pem: bytes, *, now: datetime) -> x509.Certificate:
    """Return a server certificate that may take the place of the present one.

    Raises:
        RefusedError: it is not of the server's key, not of a fleet CA, or not valid now.
        SetupError: a file of the data directory cannot be read.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as error:
        raise RefusedError(f"this is no certificate: {error}") from error
    try:
        key = load_pem_private_key((online / "tls.pem").read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SetupError(f"cannot read the server's key {online / 'tls.pem'}: {error}") from error
    if certificate.public_key() != key.public_key():
        raise RefusedError(
            "the certificate is of another key than the server's: renew the one in "
            f"{online / 'tls.crt'}"
        )
    issuer_of(certificate, FleetCas.load(online))
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise RefusedError(
            f"the certificate is valid from {certificate.not_valid_before_utc} to "
            f"{certificate.not_valid_after_utc}, which is not now"
        )
    return certificate


def install(online: Path, certificate: x509.Certificate) -> None:
    """Put a server certificate that was checked in place of the present one.

    Raises:
        OSError: the disk refuses; the old certificate stays.
    """
    durable_files.write(online / "tls.crt", certificate.public_bytes(Encoding.PEM))


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read the certificate {path}: {error}") from error

"""Who the device is: its key, its certificate, the claim it came with and where its fleet is.

Read by enrolment and renewal, which write these files, and by all who live by them. The key is made
on the device (P-256) and leaves it nowhere.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent import fleet_authorities, identity_files, store
from edge_agent.identity_files import IdentityError, IdentityFiles, NotEnrolledError
from edge_agent.state_dir import StateDir
from fleet_protocol import claims
from fleet_protocol.claims import ClaimBundle
from fleet_protocol.names import DeviceId


class Enrollment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``enrollment.json``: written last, so its presence says that enrolment is complete."""

    schema: Literal[1] = 1
    device_id: DeviceId
    server_url: str
    mqtt_host: str
    mqtt_port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


@dataclass(frozen=True, slots=True)
class Identity:
    """A complete identity, as control uses it."""

    files: IdentityFiles
    enrollment: Enrollment
    claim: ClaimBundle

    @property
    def device_id(self) -> str:
        """The device's name in its fleet."""
        return self.enrollment.device_id

    def tls_context(self, *, client_certificate: bool) -> ssl.SSLContext:
        """Return a context that trusts the fleet's certificate authorities and nobody else.

        Args:
            client_certificate: also present the device's certificate (MQTT does, HTTPS does not).

        Raises:
            IdentityError: a key or certificate file cannot be loaded.
        """
        context = pinned_tls_context(self.claim)
        followers = fleet_authorities.load(self.files.fleet_cas)
        if followers:
            found = fleet_authorities.trusted(self.claim.fleet_ca_pem, followers)
            context.load_verify_locations(cadata=found.pem)
        if client_certificate:
            try:
                pair = self.files.pair(self.files.generation)
                context.load_cert_chain(pair.certificate, pair.key)
            except (OSError, ssl.SSLError) as error:
                raise IdentityError(
                    f"cannot load {pair.certificate} with {pair.key}: {error}"
                ) from error
        return context

    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the device's key.

        Raises:
            IdentityError: the file is gone or damaged.
        """
        return load_key(self.files.key)


def load(state: StateDir) -> Identity:
    """Read a finished enrolment.

    Raises:
        NotEnrolledError: the device is not enrolled.
        IdentityError: a file is damaged or they contradict each other.
    """
    files = IdentityFiles(state.identity)
    enrollment = load_enrollment(files)
    if enrollment is None:
        raise NotEnrolledError(
            f"{state.root} is not enrolled. Enrol it first: "
            f"skerry agent enroll --server https://HOST:PORT --claim FILE --state {state.root}"
        )
    claim = load_claim(files)
    if claim.device_id != enrollment.device_id:
        raise IdentityError(
            f"{files.claim} is for {claim.device_id} and {files.enrollment} for "
            f"{enrollment.device_id}: restore the files of one enrolment"
        )
    for path in (files.key, files.certificate):
        if not path.is_file():
            raise IdentityError(f"{path} is gone: {identity_files.REPLACE}")
    return Identity(files, enrollment, claim)


def load_enrollment(files: IdentityFiles) -> Enrollment | None:
    """Return the finished enrolment of a state directory, or None.

    Raises:
        IdentityError: the file is there and damaged.
    """
    return identity_files.read(files.enrollment, _enrollment) if files.enrollment.exists() else None


def load_claim(files: IdentityFiles) -> ClaimBundle:
    """Return the claim with which the device was enrolled.

    Raises:
        IdentityError: it is missing or damaged.
    """
    return identity_files.read(files.claim, claims.decode)


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the device's key, made and stored durably if there is none yet.

    Raises:
        IdentityError: the file is there and is not a P-256 key.
        StoreError: a new key cannot be stored.
    """
    if path.exists():
        return load_key(path)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    store.write_file(path, pem)
    return key


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key in a PEM file.

    Raises:
        IdentityError: there is none.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"cannot read the device's key {path}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(f"{path} is not a P-256 key")
    return key


def certificate_request(key: ec.EllipticCurvePrivateKey, device_id: str) -> str:
    """Return a certificate request (PEM) whose common name is the device id."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def check_certificate(
    pem: str, key: ec.EllipticCurvePrivateKey, device_id: str
) -> x509.Certificate:
    """Return a certificate that is for this key and this device.

    Raises:
        IdentityError: it is not a certificate, or for another key or name.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise IdentityError(f"what the server sent is not a certificate: {error}") from error
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [device_id]:
        raise IdentityError(
            f"the server sent a certificate for {[str(name.value) for name in names]}, "
            f"this device is {device_id}"
        )
    if certificate.public_key() != key.public_key():
        raise IdentityError("the server sent a certificate for another key than this device's")
    return certificate


def pinned_tls_context(claim: ClaimBundle) -> ssl.SSLContext:
    """Return a TLS client context that trusts the claim's fleet CA only.

    Raises:
        IdentityError: the claim holds no certificate authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=claim.fleet_ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(
            f"the claim's fleet CA is not a certificate ({error}): ask for a new claim file"
        ) from error
    return context


def _enrollment(payload: bytes) -> Enrollment:
    return msgspec.json.decode(payload, type=Enrollment)

"""A provisioned fleet and what its people sign: releases, claims, device keys."""

import base64
import functools
import hashlib
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets

from fleet_protocol import claims, manifest, withdrawals
from fleet_protocol.withdrawals import NOTHING, Withdrawals
from fleet_server.data_dir import DataDir
from fleet_server.releases.verification import StoredFile
from provisioning import ceremony
from provisioning.claim_issue import ClaimIssuer
from provisioning.layout import Authority

FAMILY = "fashion_mnist"
OTHER_FAMILY = "keyword_spotting"
PASSPHRASE = b"correct horse battery"


@dataclass(frozen=True)
class DeviceKey:
    """A device's key, as its owner holds it."""

    device_id: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, device_id: str) -> "DeviceKey":
        return cls(device_id, ec.generate_private_key(ec.SECP256R1()))

    @property
    def pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def csr(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.device_id)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM).decode()

    def token(self, **changes: object) -> str:
        now = int(datetime.now(UTC).timestamp())
        stated = {
            "sub": self.device_id,
            "aud": claims.DEVICE_AUDIENCE,
            "iat": now,
            "exp": now + claims.DEVICE_TOKEN_LIFETIME_S,
        }
        return jwt.encode({"alg": "ES256"}, stated | changes, ECKey.import_key(self.pem))


@dataclass(frozen=True)
class Fleet:
    """An authority, with the keys open."""

    authority: Authority

    @classmethod
    def provision(cls, folder: Path) -> "Fleet":
        plan = ceremony.Plan.of(
            families=[FAMILY, OTHER_FAMILY], server_names=["localhost", "127.0.0.1"]
        )
        made = ceremony.create(folder, plan, passphrase=PASSPHRASE, now=datetime.now(UTC))
        return cls(made)

    def copy_to(self, folder: Path) -> "Fleet":
        shutil.copytree(self.authority.root, folder)
        return Fleet(Authority(folder))

    @property
    def data(self) -> DataDir:
        return DataDir(self.authority.server)

    def publisher(self, family: str = FAMILY) -> CryptoSigner:
        return CryptoSigner(_opened(self.authority.publisher_key(family).read_bytes()))

    def claim_tokens(self, *device_ids: str) -> dict[str, str]:
        """Return a claim token for each device."""
        issuer, now = self._claim_issuer(), datetime.now(UTC)
        return {name: claims.decode(issuer.issue(name, now=now)).token for name in device_ids}

    def claim_token(  # noqa: PLR0913 (what a claim may say, by keyword)
        self,
        device_id: str,
        *,
        now: datetime | None = None,
        lifetime: timedelta | None = None,
        tenant: str | None = None,
        labels: dict[str, str] | None = None,
        replaces: bool = False,
    ) -> str:
        payload = self._claim_issuer().issue(
            device_id,
            now=now or datetime.now(UTC),
            lifetime=lifetime or timedelta(hours=1),
            tenant=tenant,
            labels=labels,
            replaces=replaces,
        )
        return claims.decode(payload).token

    def _claim_issuer(self) -> ClaimIssuer:
        """Return the one of this claim key, whichever copy of the authority it is in."""
        key = self.authority.claim_key.read_bytes()
        if key not in _CLAIM_ISSUERS:
            _CLAIM_ISSUERS[key] = ClaimIssuer(self.authority, passphrase=PASSPHRASE)
        return _CLAIM_ISSUERS[key]


_CLAIM_ISSUERS: dict[bytes, ClaimIssuer] = {}


@functools.cache
def _opened(pem: bytes) -> PrivateKeyTypes:
    """Open a key once: a passphrase is made to take long."""
    return load_pem_private_key(pem, PASSPHRASE)


@dataclass(frozen=True)
class ReleaseFiles:
    """The content of one release, by file name."""

    family: str
    version: str
    files: dict[str, bytes]

    @property
    def by_path(self) -> dict[str, bytes]:
        return {
            f"models/{self.family}/{self.version}/{name}": content
            for name, content in self.files.items()
        }


def stored(content: bytes) -> StoredFile:
    return StoredFile(len(content), hashlib.sha256(content).hexdigest())


def release(version: str = "1.0.0", *, family: str = FAMILY, size: int = 5000) -> ReleaseFiles:
    """Make a release with one variant of random bytes."""
    content = secrets.token_bytes(size)
    tensor = manifest.GoldenTensor(
        name="x",
        datatype=manifest.Datatype.FP32,
        shape=[1],
        data_base64=base64.b64encode(bytes(4)).decode(),
    )
    spec = manifest.TensorSpec(name="x", datatype=manifest.Datatype.FP32, shape=[1])
    variant = manifest.Variant(
        name="fp32",
        file="model.onnx",
        format=manifest.Format.ONNX,
        precision="fp32",
        accelerators=["cpu"],
        length=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        accuracy=manifest.Accuracy(metric="top1", value=0.9, sample_count=10),
        memory_bytes=1000,
        golden=manifest.Golden(
            vectors=[manifest.GoldenVector(inputs=[tensor], outputs=[tensor])],
            tolerance=manifest.Tolerance(max_abs_error=0.1),
        ),
    )
    described = manifest.Manifest(
        family=family, version=version, inputs=[spec], outputs=[spec], variants=[variant]
    )
    files = {manifest.MANIFEST_FILE: manifest.encode(described), "model.onnx": content}
    return ReleaseFiles(family, version, files)


def signed_role(
    signer: CryptoSigner,
    *releases: ReleaseFiles,
    version: int = 2,
    expires: datetime | None = None,
    said: Withdrawals = NOTHING,
) -> bytes:
    """Return the metadata of a family's role that lists the given releases."""
    targets = {}
    for each in releases:
        for path, content in each.by_path.items():
            file = stored(content)
            targets[path] = TargetFile(file.length, {"sha256": file.sha256}, path)
    later = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    metadata = Metadata(
        Targets(
            version=version,
            expires=expires or later,
            targets=targets,
            unrecognized_fields=withdrawals.extra_fields(said),
        )
    )
    metadata.sign(signer)
    return metadata.to_bytes()

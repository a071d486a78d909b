"""The device CAs of a data directory: the one that issues, those before it, and one to come.

Each has a number, and its files in ``online/``: ``device-ca.pem`` and ``.crt`` are the first one's,
``device-ca-2`` the second one's. A certificate is what makes an authority trusted, its key lies
there before it. One whose certificate is still called ``.next.crt`` is trusted and issues nothing
yet: the broker has to trust it first. Renaming the certificate is the one step that puts it into
office, and removing the certificate the one that ends its trust.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.devices.certificates import DeviceCa, IssuedCertificate, RequestedKey
from fleet_server.errors import SetupError

_NAME = re.compile(r"device-ca(?:-([2-9]|[1-9][0-9]{1,3}))?(\.next)?\.crt")


@dataclass(frozen=True, slots=True, order=True)
class CaFiles:
    """Where one authority lies."""

    online: Path
    number: int
    waits: bool = False
    """Whether it issues nothing yet."""

    @property
    def _stem(self) -> str:
        return "device-ca" if self.number == 1 else f"device-ca-{self.number}"

    @property
    def key(self) -> Path:
        """The private key."""
        return self.online / f"{self._stem}.pem"

    @property
    def certificate(self) -> Path:
        """The certificate of the authority itself."""
        return self.online / f"{self._stem}{'.next' if self.waits else ''}.crt"

    def in_office(self) -> "CaFiles":
        """Return where the same authority lies when it issues."""
        return CaFiles(self.online, self.number)

    def load(self) -> DeviceCa:
        """Read the authority.

        Raises:
            SetupError: a file is missing or is not what it should be, or they do not fit.
        """
        return DeviceCa.load(key_file=self.key, certificate_file=self.certificate)


def found(online: Path) -> list[CaFiles]:
    """Return the trusted authorities, by number.

    Raises:
        SetupError: the folder cannot be read.
    """
    try:
        names = [path.name for path in online.iterdir()]
    except OSError as error:
        raise SetupError(f"cannot read {online}: {error.strerror}") from error
    matches = [match for match in map(_NAME.fullmatch, names) if match is not None]
    return sorted(CaFiles(online, int(match[1] or 1), match[2] is not None) for match in matches)


class DeviceCas:
    """The authorities as one process has them; `take` follows the files."""

    def __init__(self, online: Path) -> None:
        """Read them.

        Raises:
            SetupError: none issues, or one cannot be read.
        """
        self._online = online
        self._seen: list[tuple[CaFiles, int]] | None = None
        self._authorities: list[tuple[CaFiles, DeviceCa]] = []
        self.take()

    def take(self) -> bool:
        """Read them anew if the files have changed; says whether they had.

        Raises:
            SetupError: none issues, or one cannot be read; those that were read stay.
        """
        files = found(self._online)
        seen = [(each, _stamp(each.certificate)) for each in files]
        if seen == self._seen:
            return False
        if all(each.waits for each in files):
            raise SetupError(
                f"{self._online} has no device CA: restore device-ca*.crt and device-ca*.pem from "
                "a backup of the data directory"
            )
        self._authorities = [(each, each.load()) for each in files]
        self._seen = seen
        return True

    @property
    def numbered(self) -> Sequence[tuple[CaFiles, DeviceCa]]:
        """All of them with their files, the oldest first."""
        return self._authorities

    @property
    def trusted(self) -> Sequence[DeviceCa]:
        """All of them, the oldest first."""
        return [ca for _, ca in self._authorities]

    @property
    def issuing(self) -> DeviceCa:
        """The one that signs what is issued now: the newest in office."""
        return [ca for files, ca in self._authorities if not files.waits][-1]

    @property
    def waiting(self) -> tuple[CaFiles, DeviceCa] | None:
        """The one that will issue as soon as the broker trusts it, if there is one."""
        files, ca = self._authorities[-1]
        return (files, ca) if files.waits else None

    @property
    def former(self) -> Sequence[tuple[CaFiles, DeviceCa]]:
        """Those before the one that issues."""
        issuing = self.issuing
        position = [ca for _, ca in self._authorities].index(issuing)
        return self._authorities[:position]

    @property
    def key_ids(self) -> list[str]:
        """Which keys are trusted, the oldest first."""
        return [ca.key_id for ca in self.trusted]

    @property
    def certificates(self) -> Sequence[x509.Certificate]:
        """Their certificates, the oldest first."""
        return [ca.certificate for ca in self.trusted]

    @property
    def pem(self) -> str:
        """Their certificates, as TLS takes them."""
        return "".join(each.public_bytes(Encoding.PEM).decode() for each in self.certificates)

    def issue(self, *, device_id: str, key: RequestedKey, now: datetime) -> IssuedCertificate:
        """Issue a certificate for a device's key."""
        return self.issuing.issue(device_id=device_id, key=key, now=now)

    def issue_ingest(self, key: ec.EllipticCurvePublicKey, *, now: datetime) -> IssuedCertificate:
        """Issue a certificate for the ingest service."""
        return self.issuing.issue_ingest(key, now=now)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0

"""What of the fleet's trust runs out, when, and what to do about it. Pure but for the certificates.

The warnings come early enough for what has to be done: holders of offline keys have to meet, an
online role only shows that the server's own renewal fails.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tuf.api.metadata import Root, Targets

from fleet_server.broker import revocation_list
from fleet_server.broker.followers import Follower
from fleet_server.devices.authorities import DeviceCas
from fleet_server.errors import SetupError
from fleet_server.releases.published import Published
from fleet_server.trust import fleet_cas
from fleet_server.trust.fleet_cas import FleetCas

_DAY = timedelta(days=1)


class Level(StrEnum):
    """How urgent it is."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """One thing that runs out.

    Attributes:
        kind: ``metadata``, ``certificate``, ``broker`` or ``token``.
        family: for the list of a family.
        key_ids: that may sign the metadata; or the SHA-256 of the certificate's public key.
        warn: how long before its end it is a warning; for the last quarter of that it is critical.
        action: what to do, a sentence.
    """

    name: str
    kind: str
    family: str | None = None
    key_ids: Sequence[str]
    expires: datetime
    warn: timedelta
    action: str

    def level(self, now: datetime) -> Level:
        """Return how urgent it is."""
        left = self.expires - now
        if left <= timedelta():
            return Level.EXPIRED
        if left <= self.warn / 4:
            return Level.CRITICAL
        return Level.WARNING if left <= self.warn else Level.OK

    def days_left(self, now: datetime) -> float:
        """Return how many days are left, negative after the end."""
        return round((self.expires - now) / _DAY, 2)


_OFFLINE = timedelta(days=60)
_CEREMONY = "its holders renew it before that: `skerry provision ceremony {}`"
_BY_ITSELF = "the running server renews it; if this stays, look for maintenance_failed in its log"
_CERTIFICATES = {
    "tls.crt": (
        "server certificate",
        timedelta(days=45),
        (
            "devices trust the server no more after it; renew it, without touching them: `skerry "
            "provision renew-certificate`, then `skerry server install-certificate`"
        ),
    ),
    "ingest.crt": ("ingest certificate", timedelta(days=30), _BY_ITSELF),
}
_FOLLOWER_SILENT = timedelta(minutes=5)
_FOLLOWER_TOKEN = timedelta(days=30)
_YEAR = timedelta(days=365)
_FORMER_WARN = timedelta(days=120)
_DEVICE_CA = (
    "device certificates end with it: let another one follow, `skerry server ca new-device-ca`"
)
_FLEET_CA = (
    "devices trust no server after it: let another one follow, `skerry provision new-fleet-ca`, "
    "well before, since devices that are away meanwhile need new claims"
)
_FOLLOWED = "another one follows already: `skerry server ca show` says who still needs it"


def all_of(published: Published, director: Root, online: Path) -> list[Expiry]:
    """Return everything that runs out.

    Raises:
        SetupError: a certificate cannot be read.
    """
    device, fleet = DeviceCas(online), FleetCas.load(online)
    return [
        *_metadata(published),
        _director(director),
        *_certificates(online),
        *_authorities("device CA", device.certificates, device.issuing.certificate, _DEVICE_CA),
        *_authorities("fleet CA", fleet.trusted, fleet_cas.issuing(online, fleet), _FLEET_CA),
    ]


def of_followers(followers: Sequence[Follower]) -> Iterator[Expiry]:
    """Yield what runs out at brokers on other machines if nobody looks after them.

    A list is fetched anew within a minute, and a follower that is silent for longer is told of.
    """
    for each in followers:
        yield Expiry(
            name=f"revocation list of the broker follower {each.name}",
            kind="broker",
            key_ids=(),
            expires=each.fetched + revocation_list.LIFETIME,
            warn=revocation_list.LIFETIME - _FOLLOWER_SILENT,
            action="that broker does not learn whom to refuse, and refuses everybody after it: "
            "look at `skerry server broker-follow` there; of one that is gone, take the token back",
        )
        yield Expiry(
            name=f"token of the broker follower {each.name}",
            kind="token",
            key_ids=(),
            expires=each.token_expires,
            warn=_FOLLOWER_TOKEN,
            action="its broker learns nothing after it: make another one of the same name, `skerry "
            "server token --role broker`, and put it in place of the file",
        )


def _metadata(published: Published) -> Iterator[Expiry]:
    root = published.root
    offline = {"root": (root, "draft-root"), "targets": (published.targets, "draft-targets")}
    for role, (signed, command) in offline.items():
        yield Expiry(
            name=f"release {role}",
            kind="metadata",
            key_ids=root.roles[role].keyids,
            expires=signed.expires,
            warn=_OFFLINE,
            action=f"installs stop; {_CEREMONY.format(command)}",
        )
    for name, family in published.families.items():
        yield Expiry(
            name=f"list of {name}",
            kind="metadata",
            family=name,
            key_ids=_publishers(published.targets, name),
            expires=family.expires,
            warn=_OFFLINE,
            action=f"installs of {name} stop; publish something, or "
            + _CEREMONY.format("draft-list"),
        )
    for role, expires, warn in (
        ("snapshot", published.snapshot.expires, timedelta(days=2)),
        ("timestamp", published.timestamp.expires, timedelta(hours=8)),
    ):
        yield Expiry(
            name=f"release {role}",
            kind="metadata",
            key_ids=root.roles[role].keyids,
            expires=expires,
            warn=warn,
            action=f"installs stop; {_BY_ITSELF}",
        )


def _director(root: Root) -> Expiry:
    return Expiry(
        name="director root",
        kind="metadata",
        key_ids=root.roles["root"].keyids,
        expires=root.expires,
        warn=_OFFLINE,
        action="devices accept no assignment any more; "
        + _CEREMONY.format("draft-root --repository director"),
    )


def _certificates(online: Path) -> Iterator[Expiry]:
    for file, (name, warn, action) in _CERTIFICATES.items():
        try:
            certificate = x509.load_pem_x509_certificate((online / file).read_bytes())
        except (OSError, ValueError) as error:
            raise SetupError(f"cannot read the certificate {online / file}: {error}") from error
        yield _certificate(certificate, name, warn, action)


def _authorities(
    name: str, certificates: Sequence[x509.Certificate], issuing: x509.Certificate, action: str
) -> Iterator[Expiry]:
    """Yield authorities of one kind, of which the last one is the one that has to be followed."""
    position = certificates.index(issuing)
    for at, each in enumerate(certificates):
        named = f"{name} {fleet_cas.key_id(each)[:16]}"
        called = f"former {named}" if at < position else name if at == position else f"next {named}"
        followed = each is not certificates[-1]
        warn, then = (_FORMER_WARN, _FOLLOWED) if followed else (_YEAR, action)
        yield _certificate(each, called, warn, then)


def _certificate(certificate: x509.Certificate, name: str, warn: timedelta, action: str) -> Expiry:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Expiry(
        name=name,
        kind="certificate",
        key_ids=[sha256(key).hexdigest()],
        expires=certificate.not_valid_after_utc,
        warn=warn,
        action=action,
    )


def _publishers(targets: Targets, family: str) -> Sequence[str]:
    roles = (targets.delegations.roles if targets.delegations else None) or {}
    return roles[family].keyids if family in roles else []

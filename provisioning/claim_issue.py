"""Makes claims: the files with which new devices introduce themselves."""

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

from fleet_protocol import claims, names
from fleet_protocol.claims import ClaimBundle
from provisioning import key_files
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority

DEFAULT_LIFETIME = timedelta(days=7)
MAX_LIFETIME = timedelta(days=365)
_TOKEN_ID_BYTES = 16


class ClaimIssuer:
    """Holds the opened claim key and what every claim carries."""

    def __init__(
        self,
        authority: Authority,
        *,
        passphrase: bytes,
        token_id: Callable[[], str] = lambda: secrets.token_hex(_TOKEN_ID_BYTES),
    ) -> None:
        """Open the claim key and read the roots of trust.

        Raises:
            ProvisioningError: not an authority, or the passphrase is wrong.
        """
        self._fleet_ca = _text(authority.fleet_ca)
        self._release_root = _text(authority.release_root)
        self._director_root = _text(authority.director_root)
        self._key = ECKey.import_key(key_files.load_p256(authority.claim_key, passphrase))
        self._token_id = token_id

    def issue(  # noqa: PLR0913 (what a claim may say, by keyword)
        self,
        device_id: str,
        *,
        now: datetime,
        lifetime: timedelta = DEFAULT_LIFETIME,
        floors: Mapping[str, int] | None = None,
        tenant: str | None = None,
        labels: Mapping[str, str] | None = None,
        replaces: bool = False,
    ) -> bytes:
        """Return the content of one device's claim file.

        Args:
            device_id: the name that the device will have, or has.
            now: the present.
            lifetime: how long the claim may be used.
            floors: lowest security counter by family.
            tenant: to whom the device will belong; without it to the server's default tenant.
            labels: what the server labels the device with.
            replaces: whether it may give an enrolled device a new key.

        Raises:
            ProvisioningError: the lifetime is not between a second and `MAX_LIFETIME`.
            ProtocolError: the device id, a family or a floor is malformed.
        """
        if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
            raise ProvisioningError(
                f"a claim may live up to {MAX_LIFETIME.days} days, not {lifetime}"
            )
        issued_at = int(now.timestamp())
        expires_at = issued_at + int(lifetime.total_seconds())
        token = jwt.encode(
            {"alg": "ES256", "typ": "JWT"},
            {
                "iss": claims.TOKEN_ISSUER,
                "sub": names.device_id(device_id),
                "jti": self._token_id(),
                "iat": issued_at,
                "exp": expires_at,
                **({"tenant": tenant} if tenant else {}),
                **_extras(labels or {}, replaces=replaces),
            },
            self._key,
        )
        payload = claims.encode(
            ClaimBundle(
                device_id=device_id,
                token=token,
                expires_at_ms=expires_at * 1000,
                fleet_ca_pem=self._fleet_ca,
                release_root=self._release_root,
                director_root=self._director_root,
                floors=dict(floors or {}),
            )
        )
        claims.decode(payload)
        return payload


def _extras(labels: Mapping[str, str], *, replaces: bool) -> dict[str, object]:
    checked = {names.label_name(name): names.label_value(value) for name, value in labels.items()}
    if len(checked) > names.MAX_LABELS:
        raise ProvisioningError(f"a device may have {names.MAX_LABELS} labels")
    extras: dict[str, object] = {"labels": checked} if checked else {}
    return extras | ({"replaces": True} if replaces else {})


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ProvisioningError(
            f"cannot read {path}: {error}; is --authority the directory that "
            "`skerry provision init` made?"
        ) from error

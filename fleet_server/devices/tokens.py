"""The two tokens of a device: the one-time claim, and the short-lived one for HTTPS requests.

Both are JWTs (RFC 7519) signed with ES256; no other algorithm is ever tried.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import ECKey

from fleet_protocol import names
from fleet_protocol.claims import DEVICE_AUDIENCE, DEVICE_TOKEN_LIFETIME_S, TOKEN_ISSUER
from fleet_protocol.errors import ProtocolError
from fleet_server.errors import NotAuthenticatedError, SetupError
from fleet_server.tenant_names import DEFAULT

_ALGORITHMS = ("ES256",)
LEEWAY_S = 30
"""How far a device's clock may be off."""

MAX_TOKEN_LENGTH = 8192
_JTI = re.compile(r"\A[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class Claim:
    """A verified claim token.

    Attributes:
        jti: the number that makes it usable once.
        tenant: whose the device is.
        replaces: it may give a device that is enrolled a new key.
        labels: what the device is labelled with.
    """

    device_id: str
    jti: str
    tenant: str = DEFAULT
    replaces: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


class ClaimVerifier:
    """Knows the public key of the holder of the claim key, who is offline."""

    def __init__(self, public_key_pem: bytes) -> None:
        """Read the key.

        Raises:
            SetupError: it is not an EC public key in PEM.
        """
        self._key = _public_key(public_key_pem, "the claim key online/claim.pub.pem")

    @classmethod
    def load(cls, path: Path) -> "ClaimVerifier":
        """Read the key from its file.

        Raises:
            SetupError: it cannot be read.
        """
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise SetupError(f"cannot read the claim key {path}: {error}") from error

    def verify(self, token: str, *, now: datetime) -> Claim:
        """Return what a claim token says.

        Raises:
            NotAuthenticatedError: malformed, signed by another key, expired, or not a claim.
        """
        claims = _verified(
            token,
            self._key,
            registry=jwt.JWTClaimsRegistry(
                now=int(now.timestamp()),
                leeway=LEEWAY_S,
                iss={"essential": True, "value": TOKEN_ISSUER},
                sub={"essential": True},
                jti={"essential": True},
                exp={"essential": True},
            ),
            what="claim token",
            remedy="make a new claim with `skerry provision claim`",
        )
        device_id, jti = str(claims["sub"]), str(claims["jti"])
        try:
            names.device_id(device_id)
        except ProtocolError as error:
            raise NotAuthenticatedError(f"the claim token is not one of ours: {error}") from error
        if not _JTI.match(jti):
            raise NotAuthenticatedError("the claim token is not one of ours: its jti is malformed")
        try:
            rest = msgspec.convert(claims, _Rest)
        except msgspec.ValidationError as error:
            raise NotAuthenticatedError(f"the claim token is not one of ours: {error}") from error
        return Claim(device_id, jti, rest.tenant, rest.replaces, rest.labels)

    def invited(self, token: str) -> str:
        """Return the device that a claim token invited, whenever it was valid.

        Raises:
            NotAuthenticatedError: malformed, or signed by another key.
        """
        try:
            issued = jws.extract_compact(token.encode()).payload
            moment = msgspec.json.decode(issued or b"", type=_Issued).iat
        except (JoseError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise NotAuthenticatedError(f"this is no claim token: {error}") from error
        return self.verify(token, now=datetime.fromtimestamp(moment, UTC)).device_id


def unverified_device_id(token: str) -> str:
    """Return which device a token says to come from, so that its key can be looked up.

    Raises:
        NotAuthenticatedError: it is not a token of a device.
    """
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise NotAuthenticatedError("the token is too long")
        payload = jws.extract_compact(token.encode()).payload
        subject = msgspec.json.decode(payload or b"", type=_Subject).sub
        return names.device_id(subject)
    except (JoseError, msgspec.MsgspecError, ProtocolError, ValueError, RecursionError) as error:
        raise NotAuthenticatedError(
            "this route needs a device token: a JWT signed with the device's key"
        ) from error


def device_key(public_key_pem: str) -> ECKey:
    """Return a device's stored key, to verify its tokens with.

    Raises:
        SetupError: what is stored is no key.
    """
    return _public_key(public_key_pem.encode(), "the stored device key")


def verify_device_token(token: str, *, key: ECKey, now: datetime) -> int:
    """Accept a device's token; return when it expires, in seconds since 1970.

    Raises:
        NotAuthenticatedError: signed by another key, expired, for another audience, or valid for
            longer than `DEVICE_TOKEN_LIFETIME_S`.
    """
    claims = _verified(
        token,
        key,
        registry=jwt.JWTClaimsRegistry(
            now=int(now.timestamp()),
            leeway=LEEWAY_S,
            aud={"essential": True, "value": DEVICE_AUDIENCE},
            sub={"essential": True},
            iat={"essential": True},
            exp={"essential": True},
        ),
        what="device token",
        remedy="check the device's clock and sign a new one",
    )
    lifetime = float(str(claims["exp"])) - float(str(claims["iat"]))
    if lifetime > DEVICE_TOKEN_LIFETIME_S:
        raise NotAuthenticatedError(
            f"the device token is valid for {lifetime:.0f} s, at most "
            f"{DEVICE_TOKEN_LIFETIME_S} s are accepted"
        )
    return int(float(str(claims["exp"])))


class _Rest(msgspec.Struct):
    tenant: str = DEFAULT
    replaces: bool = False
    labels: dict[names.LabelName, names.LabelValue] = {}


class _Subject(msgspec.Struct):
    sub: str


class _Issued(msgspec.Struct):
    iat: Annotated[int, msgspec.Meta(ge=0, le=2**40)]


def _public_key(pem: bytes, what: str) -> ECKey:
    try:
        key = ECKey.import_key(pem)
    except (JoseError, ValueError) as error:
        raise SetupError(f"{what} cannot be read: {error}") from error
    if key.curve_name != "P-256":
        raise SetupError(f"{what} is not on the curve P-256")
    return key


def _verified(
    token: str, key: ECKey, *, registry: jwt.JWTClaimsRegistry, what: str, remedy: str
) -> Mapping[str, object]:
    if len(token) > MAX_TOKEN_LENGTH:
        raise NotAuthenticatedError(f"the {what} is too long")
    try:
        claims: dict[str, object] = jwt.decode(token, key, algorithms=_ALGORITHMS).claims
        registry.validate(claims)
    except ExpiredTokenError as error:
        raise NotAuthenticatedError(f"the {what} has expired; {remedy}") from error
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise NotAuthenticatedError(
            f"the {what} is not valid for this fleet: {error}; {remedy}"
        ) from error
    return claims

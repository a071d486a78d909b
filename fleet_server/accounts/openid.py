"""Logs people in at an OpenID Connect provider: authorization code with PKCE, then a session.

The steps, each with the attack that it stops (RFC 9700, OpenID Connect Core 3.1):

1. The state is the hash of a secret that only the browser that began has, in a cookie (somebody
   else's login is slipped to this browser, or this browser's answer is used in another one).
2. It is stored by its hash and usable once, within ten minutes (an answer is used again).
3. The code is exchanged with the verifier of this login (a code that was overheard).
4. The ID token is signed by a key of the provider with an asymmetric algorithm, for this client,
   by this issuer, not expired, and carries the nonce of this login (a token made elsewhere, or
   for another client, or replayed).
5. Claims become a role only by the table in the settings; who is not in it is not let in.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from urllib.parse import urlsplit

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import delete

from fleet_server import tenancy
from fleet_server.accounts.login_watch import Way
from fleet_server.accounts.logins import Grant, Logins
from fleet_server.accounts.roles import Role
from fleet_server.accounts.tables import PendingLogin
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.errors import (
    ForeignBrowserError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    UnavailableError,
)

PENDING_LIFETIME = timedelta(minutes=10)
_LEEWAY_S = 30
_ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
_MAX_NAME = 100
"""Of a session, as it is stored."""
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """One provider.

    Attributes:
        redirect_url: where the provider sends people back to, as it is registered there.
        role_claim: the claim whose values are looked up in ``roles``.
        roles: value of the claim to tenant and role.
    """

    issuer: str
    client_id: str
    client_secret: str
    redirect_url: str
    role_claim: str
    roles: Mapping[str, tuple[str, Role]]


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that begins.

    Attributes:
        address: at the provider, where it goes on.
        secret: for the browser alone, which has it when it comes back.
    """

    address: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a browser brings back from the provider (RFC 6749, sections 4.1.2 and 4.1.2.1).

    Attributes:
        code: None if the provider refused.
        error: the provider's word for why.
        secret: what the browser got when it began; None if it has none.
    """

    state: str
    code: str | None
    error: str | None
    secret: str | None


class _Discovery(msgspec.Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class OpenId:
    """The provider of one server; None in the settings turns it off."""

    def __init__(
        self, *, settings: ProviderSettings | None, database: Database, logins: Logins, clock: Clock
    ) -> None:
        self._settings = settings
        self._database = database
        self._logins = logins
        self._clock = clock

    async def begin(self, *, address: str) -> Begun:
        """Begin a login for a browser at a network address.

        Raises:
            NotFoundError: no provider is set.
            ThrottledError: too many attempts from there.
            UnavailableError: the provider or the database does not answer.
        """
        settings = self._set()
        with tenancy.everything(), self._logins.watch.beginning(Way.OPENID, address=address):
            await self._logins.throttle.count(account=None, address=address)
            found = await _discovered(settings)
            secret, nonce, verifier = (secrets.token_urlsafe(40) for _ in range(3))
            state = _sha256(secret)
            await self._store(state=state, nonce=nonce, verifier=verifier)
            there: str = await _link().authorization_url(
                settings, found.authorization_endpoint, state=state, nonce=nonce, verifier=verifier
            )
            return Begun(there, secret)

    async def _store(self, *, state: str, nonce: str, verifier: str) -> None:
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            await session.execute(delete(PendingLogin).where(PendingLogin.expires_ms < now_ms))
            session.add(
                PendingLogin(
                    state_sha256=_sha256(state),
                    nonce=nonce,
                    code_verifier=verifier,
                    expires_ms=unix_ms(self._clock() + PENDING_LIFETIME),
                )
            )

    async def finish(self, returned: Returned, *, address: str) -> Grant:
        """Begin a session for whoever comes back from the provider; see the module for the steps.

        Raises:
            NotFoundError: no provider is set.
            ForeignBrowserError: another browser began this login.
            NotAuthenticatedError: the state, the code or the ID token does not hold, or the
                provider refused.
            NotPermittedError: no role is meant for this person.
            UnavailableError: the provider or the database does not answer.
        """
        settings = self._set()
        watched = self._logins.watch.attempt(Way.OPENID, address=address)
        with tenancy.everything(), watched as attempt:
            _check_browser(settings, returned)  # (1)
            pending = await self._taken(returned.state)  # (2)
            if returned.code is None:
                raise NotAuthenticatedError(
                    f"the provider refuses this login: {returned.error or 'it gave no code'}"
                )
            found = await _discovered(settings)
            token = await _link().exchanged(  # (3)
                settings, found.token_endpoint, code=returned.code, verifier=pending.code_verifier
            )
            claims = await self._verified(settings, found, token, pending.nonce)  # (4)
            attempt.account = session_name(str(claims["sub"]), settings.issuer)
            tenant, role = _role(settings, claims)  # (5)
            return await self._logins.begin(name=attempt.account, role=role, tenant=tenant)

    def _set(self) -> ProviderSettings:
        if self._settings is None:
            raise NotFoundError(
                "no OpenID Connect provider is set; log in with POST /api/v1/login, or set "
                "oidc_issuer"
            )
        return self._settings

    async def _taken(self, state: str) -> PendingLogin:
        async with self._database.writing() as session:
            row = await session.get(PendingLogin, _sha256(state), with_for_update=True)
            if row is not None:
                await session.delete(row)
        if row is None or row.expires_ms <= unix_ms(self._clock()):
            raise NotAuthenticatedError("this login is not known, over or expired; begin anew")
        return row

    async def _verified(
        self, settings: ProviderSettings, found: _Discovery, token: str, nonce: str
    ) -> Mapping[str, object]:
        keys = await _link().fetched(found.jwks_uri)
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock().timestamp()),
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.client_id},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            exp={"essential": True},
        )
        try:
            key_set = KeySet.import_key_set(msgspec.json.decode(keys))
            claims: dict[str, object] = jwt.decode(token, key_set, algorithms=_ALGORITHMS).claims
            registry.validate(claims)
        except (JoseError, msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
            raise NotAuthenticatedError(
                f"the provider's ID token does not hold: {error}"
            ) from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject or not subject.isprintable():
            raise NotAuthenticatedError("the provider's ID token does not say who it is")
        return claims


def _link() -> ModuleType:
    from fleet_server.accounts import provider_link  # noqa: PLC0415 (see there)

    return provider_link


async def _discovered(settings: ProviderSettings) -> _Discovery:
    address = settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        found = msgspec.json.decode(await _link().fetched(address), type=_Discovery)
    except msgspec.MsgspecError as error:
        raise UnavailableError(
            f"{address} is not the description of a provider: {error}"
        ) from error
    if found.issuer != settings.issuer:
        raise UnavailableError(f"{address} describes the provider {found.issuer[:200]}")
    return found


def session_name(subject: str, issuer: str) -> str:
    """Return by what name somebody's sessions are listed and stand in the audit trail.

    What is too long is cut, with a part of its hash at the end: two people never look alike.
    """
    whole = f"oidc:{subject}@{issuer}"
    if len(whole) <= _MAX_NAME:
        return whole
    return f"{whole[: _MAX_NAME - _DIGITS - 1]}~{_sha256(whole)[:_DIGITS]}"


def _check_browser(settings: ProviderSettings, returned: Returned) -> None:
    expected = _sha256(returned.secret).encode() if returned.secret else b""
    if not expected or not hmac.compare_digest(expected, returned.state.encode("utf-8", "replace")):
        here = urlsplit(settings.redirect_url)
        raise ForeignBrowserError(
            "this browser did not begin this login, has begun another one since, or took longer "
            "than ten minutes; begin anew, in this browser, at "
            f"{here.scheme}://{here.netloc}/api/v1/oidc/login"
        )


def _role(settings: ProviderSettings, claims: Mapping[str, object]) -> tuple[str, Role]:
    stated = claims.get(settings.role_claim, [])
    values = stated if isinstance(stated, list) else [stated]
    granted = {
        settings.roles[value]
        for value in values
        if isinstance(value, str) and value in settings.roles
    }
    if len({tenant for tenant, _ in granted}) > 1:
        raise NotPermittedError(
            f"the claim {settings.role_claim} means roles in several tenants; one account has one"
        )
    if not granted:
        raise NotPermittedError(
            f"no value of the claim {settings.role_claim} means a role here; ask an admin to add "
            "one to the setting oidc_roles"
        )
    order = list(Role)
    return max(granted, key=lambda each: order.index(each[1]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

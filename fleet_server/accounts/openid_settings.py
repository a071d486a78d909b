"""The provider that the server's settings describe."""

import re

from fleet_server.accounts.openid import ProviderSettings
from fleet_server.accounts.roles import Role
from fleet_server.errors import SettingsError
from fleet_server.settings import ServerSettings
from fleet_server.tenancy import DEFAULT

_ROLE = re.compile(r"(?P<value>.+)=(?:(?P<tenant>[a-z0-9-]{1,63})/)?(?P<role>[a-z]+)")


def provider(settings: ServerSettings) -> ProviderSettings | None:
    """Return the provider; None if none is set.

    Raises:
        SettingsError: some of its settings are missing, or a role cannot be read.
    """
    needed = {
        "oidc_issuer": settings.oidc_issuer,
        "oidc_client_id": settings.oidc_client_id,
        "oidc_client_secret": settings.oidc_client_secret,
        "oidc_redirect_url": settings.oidc_redirect_url,
        "oidc_roles": settings.oidc_roles,
    }
    if not any(needed.values()):
        return None
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise SettingsError(f"OpenID Connect also needs the settings {', '.join(missing)}")
    secret = settings.oidc_client_secret
    return ProviderSettings(
        issuer=settings.oidc_issuer or "",
        client_id=settings.oidc_client_id or "",
        client_secret=secret.get_secret_value() if secret else "",
        redirect_url=settings.oidc_redirect_url or "",
        role_claim=settings.oidc_role_claim,
        roles=dict(_role(text.strip()) for text in (settings.oidc_roles or "").split(",")),
    )


def _role(text: str) -> tuple[str, tuple[str, Role]]:
    match = _ROLE.fullmatch(text)
    if match is None or match["role"] not in set(Role):
        raise SettingsError(
            f"server.oidc_roles: {text[:80]!r} is not VALUE=ROLE or VALUE=TENANT/ROLE, with a role "
            f"of {', '.join(Role)}"
        )
    return match["value"], (match["tenant"] or DEFAULT, Role(match["role"]))

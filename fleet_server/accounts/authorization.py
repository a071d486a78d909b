"""The routes' way to ask for a permission, which the OpenAPI document shows as well."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from fleet_server.accounts.roles import Permission
from fleet_server.accounts.service import Account
from fleet_server.services import Wired

SCHEME = "account"
"""Name of the security scheme; what stands beside it in the document is the permission."""

_BEARER = HTTPBearer(
    scheme_name=SCHEME,
    auto_error=False,
    description="An API token or the token of a session; see `fleet_server.accounts.roles`.",
)


def bearer_token(request: Request) -> str | None:
    """Return the token of the ``Authorization`` header (RFC 6750), if there is one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _requires(permission: Permission) -> Callable[..., Awaitable[Account]]:
    documented = Security(_BEARER, scopes=[permission.value])

    async def authorize(
        request: Request, services: Wired, _documented: Annotated[object, documented]
    ) -> Account:
        return await services.accounts.authorize(bearer_token(request), permission)

    return authorize


Reader = Annotated[Account, Depends(_requires(Permission.READ))]
Publisher = Annotated[Account, Depends(_requires(Permission.PUBLISH))]
Operator = Annotated[Account, Depends(_requires(Permission.ASSIGN))]
Follower = Annotated[Account, Depends(_requires(Permission.FOLLOW))]
Commander = Annotated[Account, Depends(_requires(Permission.COMMAND))]
Administrator = Annotated[Account, Depends(_requires(Permission.ADMINISTER))]
Decommissioner = Annotated[Account, Depends(_requires(Permission.DECOMMISSION))]

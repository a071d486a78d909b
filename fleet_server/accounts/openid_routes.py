"""Routes of logins at the OpenID Connect provider, and the cookie that holds them together.

The cookie is no account: it proves that the browser that comes back is the one that went, for as
long as it is at the provider. With HTTPS its name has the prefix ``__Host-``, so that no other host
of the same domain can set it (RFC 6265bis, section 4.1.3.2).
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from fleet_server.accounts.openid import PENDING_LIFETIME, Returned
from fleet_server.accounts.routes import client_address, session_view
from fleet_server.accounts.schemas import SessionView
from fleet_server.services import Services, Wired

router = APIRouter(prefix="/api/v1/oidc", tags=["accounts"])

_COOKIE = "skerry-login"


@router.get("/login", status_code=303, response_class=RedirectResponse)
async def begin_openid(request: Request, services: Wired) -> RedirectResponse:
    """Go to the OpenID Connect provider; it sends the browser back to `/oidc/callback`.

    A cookie, which scripts cannot read and which lasts for ten minutes, binds the two: only the
    browser that begins a login can finish it.
    """
    begun = await services.openid.begin(address=client_address(request))
    answer = RedirectResponse(begun.address, status_code=303)
    answer.set_cookie(
        _cookie(services),
        begun.secret,
        max_age=int(PENDING_LIFETIME.total_seconds()),
        secure=_is_https(services),
        httponly=True,
        samesite="lax",  # the provider's redirect is a navigation from another site
    )
    return answer


@router.get("/callback")
async def finish_openid(  # noqa: PLR0913 (what a provider sends back)
    *,
    request: Request,
    response: Response,
    services: Wired,
    state: Annotated[str, Query(max_length=500)],
    code: Annotated[str | None, Query(max_length=4000)] = None,
    error: Annotated[str | None, Query(max_length=500)] = None,
) -> SessionView:
    """Begin a session for whoever comes back from the provider, in the browser that went there."""
    name = _cookie(services)
    returned = Returned(state=state, code=code, error=error, secret=request.cookies.get(name))
    grant = await services.openid.finish(returned, address=client_address(request))
    response.delete_cookie(name, secure=_is_https(services), httponly=True, samesite="lax")
    response.headers["Cache-Control"] = "no-store"
    return session_view(grant)


def _cookie(services: Services) -> str:
    return f"__Host-{_COOKIE}" if _is_https(services) else _COOKIE


def _is_https(services: Services) -> bool:
    """Say whether browsers come back over HTTPS, whatever a proxy makes of it behind."""
    return (services.settings.oidc_redirect_url or "https:").startswith("https:")

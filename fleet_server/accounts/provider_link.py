"""Speaks to the OpenID Connect provider: the only module that imports httpx and authlib.

They are large and only servers with a provider need them, so it is imported late.
"""

import warnings
from typing import TYPE_CHECKING

from fleet_server.errors import NotAuthenticatedError, UnavailableError

with warnings.catch_warnings(record=True):
    # authlib announces, past all filters, that it will use httpx2; the log is no place for that.
    import httpx
    from authlib.common.errors import AuthlibBaseError
    from authlib.integrations.httpx_client import AsyncOAuth2Client

if TYPE_CHECKING:
    from fleet_server.accounts.openid import ProviderSettings

_TIMEOUT_S = 10.0
_SCOPE = "openid profile email"


async def authorization_url(
    settings: "ProviderSettings", endpoint: str, *, state: str, nonce: str, verifier: str
) -> str:
    """Return where a person goes to log in."""
    async with _client(settings) as client:
        address, _ = client.create_authorization_url(
            endpoint, state=state, nonce=nonce, code_verifier=verifier
        )
    return str(address)


async def fetched(address: str) -> bytes:
    """Return a document of the provider.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            answer = await client.get(address)
            return answer.raise_for_status().content
    except httpx.HTTPError as error:
        raise UnavailableError(f"the OpenID Connect provider does not answer: {error}") from error


async def exchanged(
    settings: "ProviderSettings", endpoint: str, *, code: str, verifier: str
) -> str:
    """Exchange the code of a login for an ID token, which is not yet verified.

    Raises:
        NotAuthenticatedError: the provider refuses, or gives no ID token.
        UnavailableError: the provider does not answer.
    """
    try:
        async with _client(settings) as client:
            tokens = await client.fetch_token(endpoint, code=code, code_verifier=verifier)
    except AuthlibBaseError as error:
        raise NotAuthenticatedError(f"the provider refuses this login: {error}") from error
    except (httpx.HTTPError, ValueError) as error:
        raise UnavailableError(f"the OpenID Connect provider does not answer: {error}") from error
    token = tokens.get("id_token")
    if not isinstance(token, str):
        raise NotAuthenticatedError("the provider gave no ID token")
    return token


def _client(settings: "ProviderSettings") -> AsyncOAuth2Client:
    return AsyncOAuth2Client(
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        redirect_uri=settings.redirect_url,
        scope=_SCOPE,
        code_challenge_method="S256",
        timeout=_TIMEOUT_S,
    )

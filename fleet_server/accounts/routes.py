"""Routes of accounts: the way in, users and tokens."""

from datetime import timedelta

from fastapi import APIRouter, Request, Response

from fleet_server.accounts.authorization import Administrator, Reader
from fleet_server.accounts.logins import Grant
from fleet_server.accounts.roles import Permission, Role
from fleet_server.accounts.schemas import (
    AccountView,
    AdminClaimRequest,
    LoginRequest,
    NewToken,
    PasswordChange,
    SessionView,
    TokenPage,
    TokenRequest,
    TokenView,
    UserChange,
    UserPage,
    UserRequest,
    UserView,
)
from fleet_server.accounts.service import SESSION, token_id
from fleet_server.accounts.tables import ApiToken
from fleet_server.clock import unix_ms
from fleet_server.errors import RefusedError
from fleet_server.paging import AfterName, Limit, following
from fleet_server.services import Wired

router = APIRouter(prefix="/api/v1", tags=["accounts"])


@router.post("/login")
async def login(wanted: LoginRequest, request: Request, services: Wired) -> SessionView:
    """Begin a session of 12 hours with name and password; its token goes where API tokens go."""
    grant = await services.logins.login(
        name=wanted.name, password=wanted.password, address=client_address(request)
    )
    return session_view(grant)


@router.post("/admin-claim")
async def claim_admin(wanted: AdminClaimRequest, request: Request, services: Wired) -> SessionView:
    """Become the first admin with the claim that the server printed; it works once."""
    grant = await services.logins.claim_admin(
        claim=wanted.claim,
        name=wanted.name,
        password=wanted.password,
        address=client_address(request),
    )
    return session_view(grant)


@router.get("/account")
async def show_account(account: Reader) -> AccountView:
    """Say whose token this is and what it may do."""
    return AccountView.model_validate(account, from_attributes=True)


@router.post("/account/logout", status_code=204)
async def logout(account: Reader, services: Wired) -> Response:
    """End the session whose token this is; an API token is taken back the same way."""
    await services.accounts.revoke(account.token_id)
    return Response(status_code=204)


@router.post("/account/password", status_code=204)
async def change_password(
    wanted: PasswordChange, request: Request, account: Reader, services: Wired
) -> Response:
    """Change one's own password; it ends all sessions, this one too."""
    if account.kind != SESSION:
        raise RefusedError("an API token has no password; log in, then change yours")
    await services.logins.login(
        name=account.name, password=wanted.current, address=client_address(request)
    )
    await services.users.change(account.name, password=wanted.new)
    return Response(status_code=204)


@router.get("/users")
async def list_users(
    services: Wired, _account: Administrator, after: AfterName = None, limit: Limit = 100
) -> UserPage:
    """List the tenant's local users."""
    rows = await services.users.page(after=after, limit=limit)
    return UserPage(
        users=[UserView.model_validate(row, from_attributes=True) for row in rows],
        next_after=following(rows, limit, lambda row: row.name),
    )


@router.get("/users/{user}")
async def show_user(user: str, services: Wired, _account: Administrator) -> UserView:
    """Return one user."""
    return UserView.model_validate(await services.users.get(user), from_attributes=True)


@router.post("/users", status_code=201)
async def create_user(wanted: UserRequest, services: Wired, _account: Administrator) -> UserView:
    """Make a local user in one's own tenant."""
    row = await services.users.create(name=wanted.name, role=wanted.role, password=wanted.password)
    return UserView.model_validate(row, from_attributes=True)


@router.patch("/users/{user}")
async def change_user(
    user: str, wanted: UserChange, services: Wired, _account: Administrator
) -> UserView:
    """Give a user another role or password; it ends the user's sessions."""
    row = await services.users.change(user, role=wanted.role, password=wanted.password)
    return UserView.model_validate(row, from_attributes=True)


@router.delete("/users/{user}", status_code=204)
async def delete_user(user: str, services: Wired, _account: Administrator) -> Response:
    """Remove a user; it ends the user's sessions. Tokens that were made stay valid."""
    await services.users.delete(user)
    return Response(status_code=204)


@router.get("/tokens")
async def list_tokens(
    services: Wired, _account: Administrator, after: AfterName = None, limit: Limit = 100
) -> TokenPage:
    """List the tenant's tokens and sessions."""
    rows = await services.accounts.page(after=after, limit=limit)
    return TokenPage(
        tokens=[_token(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.sha256),
    )


@router.post("/tokens", status_code=201)
async def create_token(wanted: TokenRequest, services: Wired, _account: Administrator) -> NewToken:
    """Make an API token with a role, an expiry and, if wanted, a narrower scope."""
    text, row = await services.accounts.make(
        name=wanted.name,
        role=wanted.role,
        lifetime=timedelta(seconds=wanted.lifetime_s),
        scope=wanted.scope,
    )
    return NewToken(**_token(row).model_dump(), token=text)


@router.delete("/tokens/{token}", status_code=204)
async def revoke_token(token: str, services: Wired, _account: Administrator) -> Response:
    """Take a token or a session back by its id."""
    await services.accounts.revoke(token)
    return Response(status_code=204)


def client_address(request: Request) -> str:
    """Return the address of the connection; headers that say another one are anybody's to set."""
    return request.client.host if request.client else ""


def session_view(grant: Grant) -> SessionView:
    """Return the answer to whoever was let in."""
    return SessionView(
        token=grant.token,
        expires_ms=unix_ms(grant.expires),
        name=grant.name,
        role=grant.role,
        tenant=grant.tenant,
    )


def _token(row: ApiToken) -> TokenView:
    return TokenView(
        id=token_id(row),
        name=row.name,
        role=Role(row.role),
        kind="session" if row.kind == SESSION else "token",
        scope=None if row.scope is None else [Permission(each) for each in row.scope.split()],
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
    )

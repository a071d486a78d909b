"""What the routes say about accounts."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet_server.accounts.roles import Permission, Role
from fleet_server.paging import Cursor
from fleet_server.storable import StorableText
from fleet_server.text_form import Form

Name = Annotated[StorableText, Field(min_length=1, max_length=100)]
Password = Annotated[str, Field(max_length=1024)]
MAX_LIFETIME_S = 366 * 86_400


class LoginRequest(BaseModel):
    """Who wants in."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    password: Password


class AdminClaimRequest(LoginRequest):
    """The first admin: a claim that the server printed, and the name and password to be."""

    claim: Annotated[str, Field(min_length=1, max_length=200)]


class SessionView(BaseModel):
    """A session that began. The token is not shown again."""

    token: str
    expires_ms: int
    name: str
    role: Role
    tenant: str


class AccountView(BaseModel):
    """Whose token this request carried."""

    name: str
    role: Role
    tenant: str
    permissions: list[Permission]
    kind: Literal["token", "session"]


class UserRequest(LoginRequest):
    """A new user."""

    role: Role


class UserChange(BaseModel):
    """What of a user changes."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    password: Password | None = None


class UserView(BaseModel):
    """A local user."""

    name: str
    role: Role
    created_ms: int


class UserPage(BaseModel):
    """Some users in the order of their names."""

    users: list[UserView]
    next_after: Cursor | None


class PasswordChange(BaseModel):
    """One's own password."""

    model_config = ConfigDict(extra="forbid")

    current: Password
    new: Password


class TokenRequest(BaseModel):
    """A new API token."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        Form(
            r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}$",
            "use 1 to 100 letters, digits, spaces and . _ @ -, with a letter or digit first",
        ),
    ]
    role: Role
    lifetime_s: Annotated[int, Field(ge=1, le=MAX_LIFETIME_S)]
    scope: Annotated[list[Permission], Field(min_length=1, max_length=len(Permission))] | None = (
        None
    )
    """Permissions to which it is limited; without it, all of the role's."""


class TokenView(BaseModel):
    """A token or a session, without its secret."""

    id: str
    name: str
    role: Role
    kind: Literal["token", "session"]
    scope: list[Permission] | None
    created_ms: int
    expires_ms: int


class NewToken(TokenView):
    """A token that was just made. The token itself is not shown again."""

    token: str


class TokenPage(BaseModel):
    """Some tokens in the order of their ids."""

    tokens: list[TokenView]
    next_after: Cursor | None

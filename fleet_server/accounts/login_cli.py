"""`skerry fleet login`, `logout`, `whoami` and `password`, over the server's API.

The token of a session goes into the file in which the other commands look for one.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_server.accounts import asking
from fleet_server.errors import FleetError, RefusedError
from fleet_server.operator_client import ApiError, OperatorClient
from fleet_server.operator_options import (
    AsJson,
    CaFile,
    Server,
    TokenFile,
    client_of,
    connected,
)
from fleet_server.operator_output import print_json, say, time_text, write_file
from fleet_server.trust.expiry_warning import warn_of_expiries
from signing_keys import token_files
from signing_keys.errors import SigningKeyError

PasswordFile = Annotated[Path | None, typer.Option(help="File that holds the password, mode 600.")]


def login(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: Annotated[
        Path,
        typer.Option(
            envvar="SKERRY_FLEET_TOKEN_FILE",
            help="Where the session's token goes, mode 600; the other commands read it there.",
        ),
    ],
    ca: CaFile = None,
    name: Annotated[str | None, typer.Option(help="Name of the user.")] = None,
    password_file: PasswordFile = None,
    openid: Annotated[
        bool, typer.Option("--openid", help="Log in at the company's OpenID Connect provider.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Begin a session of 12 hours and keep its token in a file.

    The password is asked for on the terminal, or read as a line from a pipe. With --openid a
    browser does it: the command says where, and asks for the token that the browser then shows.
    The provider knows one address of the server: give that one.

    Example: `skerry fleet login --name ann --token-file ~/.skerry-token --server https://HOST:8443
    --ca fleet-ca.crt`
    """
    if (name is None) != openid:
        raise RefusedError("say who you are: --name for a user of the server, or --openid")
    _check_replaceable(server, token_file, ca)
    stranger = OperatorClient(server=server, token=None, ca=ca)
    if name is None:
        token = _from_browser(server)
        found = OperatorClient(server=server, token=token, ca=ca).get("/api/v1/account")
    else:
        given = asking.secret("Password", password_file, option="--password-file")
        found = stranger.post("/api/v1/login", {"name": name, "password": given})
        token = found.pop("token")
    write_file(token_file, [f"{token}\n".encode()])
    warn_of_expiries(OperatorClient(server=server, token=token, ca=ca))
    _print_account(found | {"token_file": str(token_file)}, as_json=as_json)


def logout(*, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """End the session whose token the file holds, and remove the file.

    An API token is taken back the same way.
    """
    client_of(server, token_file, ca).post("/api/v1/account/logout")
    try:
        token_file.unlink()
    except OSError as error:
        raise FleetError(
            f"the token is taken back; cannot remove {token_file}: {error.strerror}"
        ) from error
    say(f"The token is taken back, and {token_file} is removed.")


def whoami(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """Say whose token the file holds and what it may do."""
    answer = connected(server, token_file, ca).get("/api/v1/account")
    _print_account(answer, as_json=as_json)


def password(
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    current_file: Annotated[
        Path | None, typer.Option(help="File that holds the present password, mode 600.")
    ] = None,
    new_file: Annotated[
        Path | None, typer.Option(help="File that holds the new password, mode 600.")
    ] = None,
) -> None:
    """Change your own password; it ends your sessions, so log in again.

    What no file holds is asked for. From a pipe it is read as lines: the present one first.
    """
    client = connected(server, token_file, ca)
    current = asking.secret("Current password", current_file, option="--current-file")
    new = asking.secret("New password", new_file, option="--new-file", confirmed=True)
    client.post("/api/v1/account/password", {"current": current, "new": new})
    say("The password is changed, and your sessions are over: `skerry fleet login` begins one.")


def _check_replaceable(server: str, token_file: Path, ca: Path | None) -> None:
    """Accept a file in which no token stands that would be lost.

    Raises:
        RefusedError: it holds an API token that is valid: nobody could ever read that again.
        ApiError: the server does not answer.
    """
    if not token_file.exists():
        return
    try:
        token = token_files.read(token_file)
    except SigningKeyError:
        return
    try:
        account = OperatorClient(server=server, token=token, ca=ca).get("/api/v1/account")
    except ApiError as error:
        if error.status is None:
            raise
        return
    if account["kind"] != "session":
        raise RefusedError(
            f"{token_file} holds the API token {account['name']}, which is valid: name another "
            "file with --token-file"
        )


def _from_browser(server: str) -> str:
    say(f"Open {server.rstrip('/')}/api/v1/oidc/login in a browser and log in there.")
    return asking.secret("Token that the browser shows", None, option="a pipe")


def _print_account(account: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(account)
        return
    until = f", until {time_text(account['expires_ms'])}" if "expires_ms" in account else ""
    say(f"{account['name']}: {account['role']} of the tenant {account['tenant']}{until}")
    if "permissions" in account:
        say(f"  may {', '.join(account['permissions'])}")
    if "token_file" in account:
        say(f"  its token is in {account['token_file']}")

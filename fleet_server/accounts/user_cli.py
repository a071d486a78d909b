"""`skerry fleet users` and `user`, over the server's API; for administrators."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_server.accounts import asking
from fleet_server.accounts.roles import Role
from fleet_server.operator_client import part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import say, tell, time_text

app = typer.Typer(no_args_is_help=True, help="Let people in, change what they may do, or not.")

Name = Annotated[str, typer.Argument(help="Name of the user.")]
PasswordFile = Annotated[
    Path | None, typer.Option(help="File that holds the password to be, mode 600.")
]
_ROLE = "viewer reads; publisher also uploads releases; operator also assigns them; admin: all."

_ROOT = "/api/v1/users"


def list_users(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List the users who log in with a password; those of a provider are not listed."""
    found = connected(server, token_file, ca).pages(_ROOT, "users")
    print_list(
        found,
        key="users",
        columns=("user", "role", "since"),
        row=lambda item: (item["name"], item["role"], time_text(item["created_ms"])),
        empty="There is no user.",
        as_json=as_json,
    )


@app.command()
def add(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Name,
    role: Annotated[Role, typer.Option(help=_ROLE)],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    password_file: PasswordFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a user; the first password is asked for, or read as a line from a pipe.

    Example: `skerry fleet user add bea --role operator --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    given = asking.secret("Password", password_file, option="--password-file", confirmed=True)
    answer = client.post(_ROOT, {"name": name, "role": role.value, "password": given})
    said = f"{answer['name']} may log in as {answer['role']}: `skerry fleet login --name {name}`."
    tell(answer, said, as_json=as_json)


@app.command("role")
def change_role(
    *,
    name: Name,
    role: Annotated[Role, typer.Argument(help=_ROLE)],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
) -> None:
    """Give a user another role; it ends the user's sessions."""
    connected(server, token_file, ca).patch(_path(name), {"role": role.value})
    say(f"{name} is {role.value} from now on and has to log in again.")


@app.command("password")
def reset_password(
    *,
    name: Name,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    password_file: PasswordFile = None,
) -> None:
    """Give a user another password; it ends the user's sessions."""
    client = connected(server, token_file, ca)
    given = asking.secret("Password", password_file, option="--password-file", confirmed=True)
    client.patch(_path(name), {"password": given})
    say(f"{name} has another password and has to log in again.")


@app.command()
def remove(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Remove a user at once, sessions included.

    API tokens that were made stay valid: look through `skerry fleet tokens`.
    """
    connected(server, token_file, ca).delete(_path(name))
    say(f"{name} is removed. API tokens stay valid: `skerry fleet tokens` lists them.")


def _path(name: str) -> str:
    return f"{_ROOT}/{part(name)}"

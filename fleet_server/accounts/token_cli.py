"""`skerry fleet tokens` and `token`, over the server's API; for administrators."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fleet_server.accounts.roles import Permission, Role
from fleet_server.duration import duration
from fleet_server.operator_client import part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_json, say, time_text, warn
from signing_keys import private_files

app = typer.Typer(no_args_is_help=True, help="Make API tokens for programs, or take them back.")

_ROOT = "/api/v1/tokens"


def list_tokens(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List API tokens and sessions, those that have expired included."""
    found = connected(server, token_file, ca).pages(_ROOT, "tokens")
    print_list(
        found,
        key="tokens",
        columns=("id", "kind", "name", "role", "only", "made", "expires"),
        row=lambda item: (
            item["id"],
            item["kind"],
            item["name"],
            item["role"],
            ", ".join(item["scope"] or ()),
            time_text(item["created_ms"]),
            time_text(item["expires_ms"]),
        ),
        empty="There is no token.",
        as_json=as_json,
    )


@app.command()
def create(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Annotated[str, typer.Argument(help="Whose token it is, for logs and messages.")],
    role: Annotated[Role, typer.Option(help="The most that it may do.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    scope: Annotated[
        list[Permission] | None,
        typer.Option(help="Only this of what the role may do. Repeat for more."),
    ] = None,
    expires: Annotated[str, typer.Option(help="Lifetime such as 12h or 30d.")] = "30d",
    out: Annotated[
        Path | None, typer.Option(help="Write it to this new file, mode 600, and do not print it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API token and hand it out, once: the server keeps only its hash.

    Example: `skerry fleet token create ci --role operator --scope read --scope assign --expires 90d
    --out ci-token --server URL --token-file token`
    """
    body = {
        "name": name,
        "role": role.value,
        "lifetime_s": int(duration(expires, option="--expires").total_seconds()),
        "scope": [each.value for each in scope] if scope else None,
    }
    client = connected(server, token_file, ca)
    with nullcontext() if out is None else private_files.new(out, "token") as file:
        answer = client.post(_ROOT, body)
        if file is not None:
            file.write(f"{answer.pop('token')}\n".encode())
    if as_json:
        print_json(answer | ({} if out is None else {"file": str(out)}))
        return
    if out is None:
        say(answer["token"])
    warn(
        f"The token {answer['id']} of {name} ({role.value}) is valid until "
        f"{time_text(answer['expires_ms'])}. "
        + ("It is not shown again." if out is None else f"It is in {out}.")
    )


@app.command()
def revoke(
    *,
    token: Annotated[str, typer.Argument(help="Id of the token or session.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
) -> None:
    """Take a token or a session back by its id; it is refused from now on."""
    connected(server, token_file, ca).delete(f"{_ROOT}/{part(token)}")
    say(f"The token {token} is taken back.")

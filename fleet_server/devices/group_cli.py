"""`skerry fleet groups` and `group`: selectors saved under a name, over the server's API."""

from typing import Annotated

import typer

from fleet_server.operator_client import part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import say, tell

app = typer.Typer(no_args_is_help=True, help="Save a selector under a name, or remove it.")

Name = Annotated[str, typer.Argument(help="Name of the group.")]

_ROOT = "/api/v1/groups"


def list_groups(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List groups; `skerry fleet devices --group NAME` lists the devices of one."""
    found = connected(server, token_file, ca).pages(_ROOT, "groups")
    print_list(
        found,
        key="groups",
        columns=("group", "selector", "description"),
        row=lambda item: [item["name"], item["selector"], item["description"]],
        empty="There is no group.",
        as_json=as_json,
    )


@app.command()
def save(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Name,
    selector: Annotated[str, typer.Option(help="What it selects, by labels and facts.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    description: Annotated[str, typer.Option(help="For those who read it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Save a group in the place of the one of its name.

    Example: `skerry fleet group save north --selector site=oslo --server URL --token-file token`
    """
    body = {"selector": selector, "description": description}
    answer = connected(server, token_file, ca).put(_path(name), body)
    tell(answer, f"The group {name} selects {answer['selector']}.", as_json=as_json)


@app.command()
def remove(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Remove a group; its devices stay as they are.

    Example: `skerry fleet group remove north --server URL --token-file token`
    """
    connected(server, token_file, ca).delete(_path(name))
    say(f"The group {name} is removed.")


def _path(name: str) -> str:
    return f"{_ROOT}/{part(name)}"

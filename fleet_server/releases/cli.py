"""`skerry fleet releases`, `release` and `assign`, over the server's API."""

from typing import Annotated

import typer

from fleet_protocol.counting import counted
from fleet_server.errors import RefusedError
from fleet_server.operator_client import part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_json, say, time_text


def releases(
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    as_json: AsJson = False,
) -> None:
    """List published releases.

    Example: `skerry fleet releases --family fashion_mnist --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    found = client.pages("/api/v1/releases", "releases", {"family": family})
    print_list(
        found,
        key="releases",
        columns=("family", "version", "published", "size", "security counter", "description"),
        row=lambda item: [
            item["family"],
            item["version"],
            time_text(item["published_ms"]),
            f"{item['size_bytes']:,}",
            str(item["security_counter"]),
            item["description"][:60],
        ],
        numbers={"size", "security counter"},
        empty="No release is published.",
        as_json=as_json,
    )


def release(
    *,
    family: Annotated[str, typer.Argument(help="Model family.")],
    version: Annotated[str, typer.Argument(help="Release version.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
) -> None:
    """Print a release with its manifest, as JSON: variants, what they need, what they accept.

    Example: `skerry fleet release fashion_mnist 1.0.0 --server URL --token-file token`
    """
    path = f"/api/v1/releases/{part(family)}/{part(version)}"
    print_json(connected(server, token_file, ca).get(path))


def assign(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    family: Annotated[str, typer.Argument(help="Model family.")],
    version: Annotated[str, typer.Argument(help="Release version.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    device: Annotated[list[str] | None, typer.Option(help="Device id. Repeat for more.")] = None,
    to_all: Annotated[bool, typer.Option("--all", help="All devices.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let devices run a release; their other families stay as they are.

    Repeating it makes a device try a release again that failed on it.

    Example: `skerry fleet assign fashion_mnist 1.0.0 --device cam-01 --server URL
    --token-file token`
    """
    if bool(device) == to_all:
        raise RefusedError("say to which devices: --device ID (repeated for more), or --all")
    client = connected(server, token_file, ca)
    body = {"family": family, "version": version, "devices": None if to_all else device}
    answer = client.put("/api/v1/assignments", body)
    if as_json:
        print_json(answer)
        return
    ids = [item["device_id"] for item in answer["assigned"]]
    say(f"{family} {version} is assigned to {counted(len(ids), 'device')}: {_listed(ids)}")


def _listed(ids: list[str], most: int = 8) -> str:
    return ", ".join(ids[:most]) + (" ..." if len(ids) > most else "")

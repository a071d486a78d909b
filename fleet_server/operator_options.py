"""The options that all commands of `skerry fleet` share, and the client that they mean."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_server.errors import FleetError
from fleet_server.operator_client import OperatorClient

Server = Annotated[
    str, typer.Option(envvar="SKERRY_FLEET_SERVER", help="Address, such as https://HOST:8443.")
]
TokenFile = Annotated[
    Path,
    typer.Option(
        envvar="SKERRY_FLEET_TOKEN_FILE", help="File with a token of `skerry server token`."
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca", envvar="SKERRY_FLEET_CA", help="The fleet's CA: `public/fleet-ca.crt`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]


def connected(server: str, token_file: Path, ca: Path | None) -> OperatorClient:
    """Return the client that a command's options mean.

    Raises:
        FleetError: the token file cannot be read or holds no token.
    """
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"cannot read the token file {token_file}: {error}") from error
    if not token or not token.isascii() or len(token.split()) != 1:
        raise FleetError(f"{token_file} does not hold a token")
    return OperatorClient(server=server, token=token, ca=ca)

"""The options that all commands of `skerry fleet` share, and the client that they mean."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_server.operator_client import OperatorClient
from fleet_server.trust.expiry_warning import warn_of_expiries
from signing_keys import token_files

Server = Annotated[
    str, typer.Option(envvar="SKERRY_FLEET_SERVER", help="Address, such as https://HOST:8443.")
]
TokenFile = Annotated[
    Path,
    typer.Option(
        envvar="SKERRY_FLEET_TOKEN_FILE",
        help="File with a token of `skerry fleet login`, `skerry fleet token create` or "
        "`skerry server token --out`.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca", envvar="SKERRY_FLEET_CA", help="The fleet's CA: `public/fleet-ca.crt`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]


def connected(server: str, token_file: Path, ca: Path | None) -> OperatorClient:
    """Return the client that a command's options mean, and warn of what runs out.

    Raises:
        SigningKeyError: the token file cannot be read, others may open it, or it holds no token.
        ApiError: the address is not an HTTPS one, or the CA file is absent.
    """
    client = client_of(server, token_file, ca)
    warn_of_expiries(client)
    return client


def client_of(server: str, token_file: Path, ca: Path | None) -> OperatorClient:
    """Return the client that a command's options mean.

    Raises:
        SigningKeyError: the token file cannot be read, others may open it, or it holds no token.
        ApiError: the address is not an HTTPS one, or the CA file is absent.
    """
    return OperatorClient(server=server, token=token_files.read(token_file), ca=ca)

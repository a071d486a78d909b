"""`skerry fleet claim-admin`: become the first admin, over the server's API.

Claim and password come from a prompt, a pipe or files, never from arguments: those stand in process
listings and shell histories.
"""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet_server.errors import FleetError
from fleet_server.operator_client import OperatorClient
from fleet_server.operator_options import AsJson, CaFile, Server
from fleet_server.operator_output import print_json, say, warn, write_file
from signing_keys import passphrases

_MAX_LINE = 2048


def claim_admin(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    name: Annotated[str, typer.Option(help="Name of the account to be.")],
    ca: CaFile = None,
    claim_file: Annotated[
        Path | None, typer.Option(help="File that holds the claim, mode 600.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File that holds the password to be, mode 600.")
    ] = None,
    token_out: Annotated[
        Path | None,
        typer.Option(help="Write the token of a session of 12 hours to this file, mode 600."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Become the first admin with the claim that the server printed; it works once.

    What no file holds is asked for on the terminal. From a pipe it is read as lines: the claim
    first, then the password. `skerry server admin-claim` prints another claim.

    Example: `skerry fleet claim-admin --name ann --token-out token --server https://HOST:8443
    --ca fleet-ca.crt`
    """
    client = OperatorClient(server=server, token=None, ca=ca)
    claim = passphrases.from_file(claim_file) if claim_file else _asked("Claim")
    if password_file:
        password = passphrases.from_file(password_file)
    else:
        password = _asked("Password", confirmed=True)
    answer = client.post(
        "/api/v1/admin-claim", {"claim": claim, "name": name, "password": password}
    )
    token = answer.pop("token")
    if as_json:
        print_json(answer)
    else:
        say(f"{answer['name']} is an admin of the tenant {answer['tenant']}.")
    if token_out is not None:
        write_file(token_out, f"{token}\n".encode())
        warn(f"{token_out} holds the token of a session of 12 hours.")


def _asked(what: str, *, confirmed: bool = False) -> str:
    """Return a secret from the terminal, or the next line of a pipe.

    Raises:
        FleetError: there is none, or the two that were typed differ.
    """
    if not sys.stdin.isatty():
        given = sys.stdin.readline(_MAX_LINE).rstrip("\r\n")
    else:
        given = getpass.getpass(f"{what}: ")
        if confirmed and getpass.getpass("Repeat for confirmation: ") != given:
            raise FleetError("the two differ; the claim is not used, try again")
    if not given:
        raise FleetError(
            f"no {what.lower()} was given: type it, pipe it in as a line, or name a file that "
            f"holds it with --{what.lower()}-file"
        )
    return given

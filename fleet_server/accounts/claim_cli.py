"""`skerry fleet claim-admin`: become the first admin, over the server's API.

Claim and password come from a prompt, a pipe or files, never from arguments: those stand in process
listings and shell histories.
"""

from pathlib import Path
from typing import Annotated

import typer

from fleet_server.accounts import asking
from fleet_server.operator_client import OperatorClient
from fleet_server.operator_options import AsJson, CaFile, Server
from fleet_server.operator_output import tell, warn, write_file


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
    claim = asking.secret("Claim", claim_file, option="--claim-file")
    password = asking.secret("Password", password_file, option="--password-file", confirmed=True)
    answer = client.post(
        "/api/v1/admin-claim", {"claim": claim, "name": name, "password": password}
    )
    token = answer.pop("token")
    tell(answer, f"{answer['name']} is an admin of the tenant {answer['tenant']}.", as_json=as_json)
    if token_out is not None:
        write_file(token_out, [f"{token}\n".encode()])
        warn(f"{token_out} holds the token of a session of 12 hours.")

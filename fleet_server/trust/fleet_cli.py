"""`skerry fleet adopt` and `expiries`: the fleet's trust, over the server's API."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_server.errors import FleetError
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, client_of, connected
from fleet_server.operator_output import coloured, print_json, say


def adopt(
    *,
    file: Annotated[
        list[Path],
        typer.Argument(help="Signed roots, targets.json and lists of `ceremony combine`."),
    ],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Give the server metadata that was signed offline; send what belongs together at once.

    The server verifies it as devices will, and goes on with it at once, without a restart. What it
    has already is passed over. Needs a token of the role publisher.

    Example: `skerry fleet adopt 2.root.json 2.targets.json --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    documents = []
    for path in file:
        try:
            documents.append(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise FleetError(f"cannot read {path}: {error}") from error
    answer = client.post("/api/v1/trust/metadata", {"documents": documents})
    if as_json:
        print_json(answer)
        return
    for name in answer["adopted"] or ["nothing: the server has all of it"]:
        say(f"adopted {name}")


def expiries(
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List what of the fleet's trust runs out: signed metadata, certificates, the nearest first.

    Example: `skerry fleet expiries --server URL --token-file token`
    """
    answer = client_of(server, token_file, ca).get("/api/v1/trust/expiries")
    print_list(
        answer["expiries"],
        key="expiries",
        columns=("what", "level", "days left", "keys", "what to do"),
        row=lambda item: [
            item["name"],
            coloured(item["level"]),
            f"{item['days_left']:.1f}",
            " ".join(keyid[:8] for keyid in item["key_ids"]),
            item["action"] if item["level"] != "ok" else "",
        ],
        numbers={"days left"},
        empty="Nothing runs out.",
        as_json=as_json,
    )

"""`skerry fleet rollout`: what operators begin and change, over the server's API."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fleet_server.errors import FleetError, RefusedError
from fleet_server.operator_client import OperatorClient, part
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import say
from fleet_server.rollouts import following_cli, stage_option
from fleet_server.rollouts.following_cli import ROOT, Id, print_rollout

app = typer.Typer(no_args_is_help=True, help="Bring a release to a fleet in stages.")

Reason = Annotated[str, typer.Option(help="Why; it is kept in the history.")]

app.command()(following_cli.show)
app.command()(following_cli.watch)
app.command("devices")(following_cli.list_devices)
app.command()(following_cli.history)


@app.command()
def create(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    family: Annotated[str, typer.Argument(help="Model family.")],
    version: Annotated[str, typer.Argument(help="Release version.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    selector: Annotated[str, typer.Option(help="Which devices, by labels and facts.")] = "*",
    group: Annotated[str | None, typer.Option(help="Only devices of this group.")] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="How many devices, or which share, have it after each stage, and how long they "
            "are watched then, such as `5:1h,10%:30m,100%`; otherwise one device, a tenth, "
            "everyone, as far as the fleet is large enough."
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with stages, thresholds and limits instead: see docs/rollouts.md."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a rollout; it begins at once with its first stage.

    Example: `skerry fleet rollout create fashion_mnist 1.1.0 --selector site=oslo
    --stages 2:10m,20%,100% --server URL --token-file token`
    """
    body = {"family": family, "version": version, "selector": selector, "group": group}
    stated = {**body, "plan": _plan(stages, plan)}
    view = connected(server, token_file, ca).post(ROOT, stated)
    print_rollout(view, as_json=as_json)
    if not as_json:
        say(f"Follow it with `skerry fleet rollout watch {view['id']}`.")


@app.command()
def pause(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Decide nothing until it is resumed; devices that are changing go on."""
    _act(connected(server, token_file, ca), rollout, "pause", reason, as_json=as_json)


@app.command()
def resume(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Go on; after a stop this accepts the devices that failed until now."""
    _act(connected(server, token_file, ca), rollout, "resume", reason, as_json=as_json)


@app.command()
def abort(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """End it where it is; devices keep what they have."""
    _act(connected(server, token_file, ca), rollout, "abort", reason, as_json=as_json)


@app.command()
def rollback(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Let every device that has the release go back to what it ran before."""
    _act(connected(server, token_file, ca), rollout, "rollback", reason, as_json=as_json)


@app.command()
def retry(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    rollout: Id,
    device: Annotated[str, typer.Argument(help="Device id.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Let one device that failed or fell silent try again."""
    client = connected(server, token_file, ca)
    print_rollout(client.post(f"{ROOT}/{rollout}/devices/{part(device)}/retry"), as_json=as_json)


def _plan(stages: str | None, file: Path | None) -> object:
    if file is None:
        return {} if stages is None else {"stages": stage_option.stages(stages)}
    if stages is not None:
        raise RefusedError("give either --stages or --plan: a plan has stages of its own")
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise FleetError(f"cannot read the plan {file}: {error}") from error


def _act(client: OperatorClient, rollout: int, word: str, reason: str, *, as_json: bool) -> None:
    print_rollout(client.post(f"{ROOT}/{rollout}/{word}", {"reason": reason}), as_json=as_json)

"""`skerry fleet rollout ...`: rollouts from the command line, over the server's API."""

import json
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from fleet_server.errors import FleetError, RefusedError
from fleet_server.operator_client import OperatorClient
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_json, print_table, say
from fleet_server.rollouts import stage_option

app = typer.Typer(no_args_is_help=True, help="Bring a release to a fleet in stages.")

Id = Annotated[int, typer.Argument(help="Number of the rollout.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history.")]

_ROOT = "/api/v1/rollouts"
_ENDED = frozenset({"completed", "rolled_back", "stopped", "aborted", "paused"})
_POLL_S = 2.0


def list_rollouts(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List rollouts, the newest first.

    Example: `skerry fleet rollouts --server URL --token-file token`
    """
    found = list(connected(server, token_file, ca).pages(_ROOT, "rollouts", {}))
    if as_json:
        print_json({"rollouts": found})
        return
    print_table(
        ("id", "release", "status", "stage", "because"),
        [
            (
                str(item["id"]),
                f"{item['family']} {item['version']}",
                item["status"],
                f"{item['stage']}/{item['stages']}",
                item["reason"],
            )
            for item in found
        ],
        empty="There is no rollout.",
    )


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
    view = connected(server, token_file, ca).post(_ROOT, stated)
    _show(view, as_json=as_json)
    if not as_json:
        say(f"Follow it with `skerry fleet rollout watch {view['id']}`.")


@app.command()
def show(
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a rollout: its stages, what it waits for, and why."""
    _show(connected(server, token_file, ca).get(f"{_ROOT}/{rollout}"), as_json=as_json)


@app.command()
def watch(
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a rollout does each time that changes, until it rests."""
    client, said = connected(server, token_file, ca), ""
    while True:
        view = client.get(f"{_ROOT}/{rollout}")
        if view["explanation"] != said:
            said = view["explanation"]
            done = f"{view['healthy']}/{view['devices']} healthy"
            if as_json:
                print_json(view, indent=None)
            else:
                say(f"{view['status']}, {done}: {said}")
        if view["status"] in _ENDED:
            return
        time.sleep(_POLL_S)


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
    _show(client.post(f"{_ROOT}/{rollout}/devices/{quote(device, safe='')}/retry"), as_json=as_json)


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
    _show(client.post(f"{_ROOT}/{rollout}/{word}", {"reason": reason}), as_json=as_json)


def _show(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    say(
        f"rollout {view['id']}: {view['family']} {view['version']}, {view['status']}, "
        f"{view['healthy']}/{view['devices']} devices healthy",
        view["explanation"],
    )
    for stage in view["progress"]:
        states = ", ".join(f"{count} {state}" for state, count in stage["states"].items())
        word = "open" if stage["open"] else "not open yet"
        say(f"  stage {stage['number']} ({word}): {states}")
    for row in view["decisions"]:
        say(f"  {row['number']:>4} {row['kind']}: {row['reason']}")

"""`skerry fleet rollouts` and the commands of `rollout` that only look."""

from typing import Annotated, Any

import typer

from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_json, say, time_text, warn
from fleet_server.rollouts.watching import RESTS, follow

Id = Annotated[int, typer.Argument(help="Number of the rollout.")]

ROOT = "/api/v1/rollouts"


def list_rollouts(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List rollouts, the newest first.

    Example: `skerry fleet rollouts --server URL --token-file token`
    """
    found = connected(server, token_file, ca).pages(ROOT, "rollouts")
    print_list(
        found,
        key="rollouts",
        columns=("id", "release", "status", "stage", "because"),
        row=lambda item: (
            str(item["id"]),
            f"{item['family']} {item['version']}",
            item["status"],
            f"{item['stage']}/{item['stages']}",
            item["reason"],
        ),
        empty="There is no rollout.",
        as_json=as_json,
    )


def show(
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a rollout: its stages, what it waits for, and why."""
    print_rollout(connected(server, token_file, ca).get(f"{ROOT}/{rollout}"), as_json=as_json)


def list_devices(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    state: Annotated[
        str | None, typer.Option(help="Only in this state, such as failed or silent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices of a rollout: how each of them stands, and why.

    Example: `skerry fleet rollout devices 1 --state failed --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    found = client.pages(f"{ROOT}/{rollout}/devices", "devices", {"state": state})
    print_list(
        found,
        key="devices",
        columns=("device", "stage", "state", "told", "settled", "ran before", "why"),
        row=lambda item: (
            item["device_id"],
            str(item["stage"]),
            item["state"] + (" (accepted)" if item["excused"] else ""),
            _moment(item["ordered_ms"]),
            _moment(item["settled_ms"]),
            item["previous_version"] or "-",
            item["detail"],
        ),
        empty="No device of the rollout is in that state." if state else "It has no device.",
        as_json=as_json,
    )


def history(
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List every decision of a rollout with its reason, the newest first."""
    client = connected(server, token_file, ca)
    found = client.pages(f"{ROOT}/{rollout}/decisions", "decisions")
    print_list(
        found,
        key="decisions",
        columns=("number", "when", "what", "because"),
        row=lambda row: (str(row["number"]), time_text(row["at_ms"]), row["kind"], row["reason"]),
        empty="Nothing was decided yet.",
        numbers={"number"},
        as_json=as_json,
    )


def watch(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    rollout: Id,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    patience_s: Annotated[
        float, typer.Option(min=0, help="How long a server that answered once may be away.")
    ] = 900.0,
    as_json: AsJson = False,
) -> None:
    """Say what a rollout does each time that changes, until it rests.

    Ends with 0 if it is complete, 3 if it was stopped, 4 if it was rolled back, 5 if it was
    aborted, 6 if an operator paused it; with 1 if the server refuses or does not come back, with
    130 after Ctrl-C, which changes nothing about the rollout. With --json each line is the
    rollout as the API shows it.

    Example: `skerry fleet rollout watch 1 --server URL --token-file token && echo shipped`
    """
    client = connected(server, token_file, ca)
    status = ""
    for view in follow(
        lambda: client.get(f"{ROOT}/{rollout}"),
        patience_s=patience_s,
        troubled=lambda why: warn(f"{why}; the rollout goes on, trying again"),
    ):
        status = view["status"]
        if as_json:
            print_json(view, indent=None)
        else:
            done = f"{view['healthy']}/{view['devices']} healthy"
            say(f"{status}, {done}: {view['explanation']}")
    raise typer.Exit(RESTS[status])


def _moment(unix_ms: int | None) -> str:
    return "-" if unix_ms is None else time_text(unix_ms)


def print_rollout(view: dict[str, Any], *, as_json: bool) -> None:
    """Print a rollout with its stages and its newest decisions."""
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

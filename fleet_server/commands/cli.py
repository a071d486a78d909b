"""`skerry fleet command` and `skerry fleet logs`, over the server's API."""

import gzip
import io
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_server.errors import FleetError, RefusedError
from fleet_server.operator_client import OperatorClient, part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import (
    print_fields,
    print_json,
    print_lines,
    print_rows,
    say,
    tell,
    time_text,
    waiting,
    waits_for,
    warn,
    write_file,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Ask devices to do one of a few things, and read what they answer.\n\n"
    "A command is signed, runs at most once and is answered once. A device that is away gets it "
    "when it comes back, until it expires. Exit status: 0 if all devices did it, 1 if one refused "
    "or failed, 3 if an answer did not come in time (`command show` has it later).",
)

Devices = Annotated[list[str], typer.Argument(help="One device or several.")]
Lifetime = Annotated[
    str, typer.Option("--expires-in", help="Not begun later than this, such as 10m or 8h.")
]
WaitS = Annotated[float, typer.Option("--wait-s", help="How long to wait for answers; 0: not.")]

_NOT_DONE = 1
_NO_ANSWER = 3
_LOOK_EVERY_S = 0.5
_MAX_LOG_BYTES = 256 * 1024 * 1024
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command()
def diagnostics(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    devices: Devices,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    expires_in: Lifetime = "1h",
    wait_s: WaitS = 60.0,
    as_json: AsJson = False,
) -> None:
    """Show how devices are: versions, disk, memory, temperature, clock, connections.

    Says what each device serves now, and beside it how the newest update of each model family
    stands: one that failed leaves serving what served before.

    Example: `skerry fleet command diagnostics cam-01 --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    answered = _ordered(client, devices, {"kind": "diagnostics"}, expires_in, wait_s)
    _shown(answered, as_json=as_json)


@app.command()
def bench(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    devices: Devices,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    family: Annotated[str | None, typer.Option(help="Only this model family.")] = None,
    expires_in: Lifetime = "1h",
    wait_s: WaitS = 120.0,
    as_json: AsJson = False,
) -> None:
    """Time the releases that serve on their golden inputs, beside live calls at low priority."""
    client = connected(server, token_file, ca)
    action = {"kind": "bench", "family": family}
    _shown(_ordered(client, devices, action, expires_in, wait_s), as_json=as_json)


@app.command("restart-runtime")
def restart_runtime(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    devices: Devices,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    expires_in: Lifetime = "10m",
    wait_s: WaitS = 150.0,
    as_json: AsJson = False,
) -> None:
    """Restart the runtime process: calls are not answered for a moment.

    A device does it once in ten minutes at most, and not while it judges an update.
    """
    client = connected(server, token_file, ca)
    answered = _ordered(client, devices, {"kind": "restart_runtime"}, expires_in, wait_s)
    _shown(answered, as_json=as_json)


@app.command("list")
def list_commands(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    device: Annotated[str | None, typer.Option(help="Only to this device.")] = None,
    state: Annotated[str | None, typer.Option(help="Such as open, done or expired.")] = None,
    kind: Annotated[str | None, typer.Option(help="Such as logs.")] = None,
    as_json: AsJson = False,
) -> None:
    """List commands, the newest first."""
    fields = {"device": device, "state": state, "kind": kind}
    found = connected(server, token_file, ca).pages("/api/v1/commands", "commands", fields)
    print_list(
        found,
        key="commands",
        columns=("id", "device", "kind", "state", "issued", "by", "what came of it"),
        row=lambda one: (
            one["id"],
            one["device_id"],
            one["kind"],
            one["state"],
            time_text(one["issued_ms"]),
            one["requested_by"],
            one["detail"],
        ),
        empty="There is no such command.",
        as_json=as_json,
    )


@app.command()
def show(
    *,
    command: Annotated[str, typer.Argument(help="Id of the command.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a command and its answer."""
    found = connected(server, token_file, ca).get(f"/api/v1/commands/{part(command)}")
    _shown([found], as_json=as_json)


@app.command()
def cancel(
    *,
    command: Annotated[str, typer.Argument(help="Id of the command.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Take an open command back; a device that has begun already still answers it."""
    client = connected(server, token_file, ca)
    answer = client.post(f"/api/v1/commands/{part(command)}/cancel")
    tell(answer, f"The command {command} to {answer['device_id']} is taken back.", as_json=as_json)


def logs(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    device: Annotated[str, typer.Argument(help="Whose log.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    since: Annotated[str, typer.Option(help="How far back, such as 30m or 2d.")] = "1h",
    level: Annotated[str, typer.Option(help="The least: debug, info, warning, error.")] = "info",
    lines: Annotated[int, typer.Option(help="How many at most; the newest count.")] = 1000,
    process: Annotated[
        str, typer.Option(help="control, runtime or supervisor; without it, all.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="Write them to this file, not to the terminal.")
    ] = None,
    expires_in: Lifetime = "1h",
    wait_s: WaitS = 60.0,
    as_json: AsJson = False,
) -> None:
    """Collect lines of a device's log: JSON lines, secrets taken out on the device.

    Example: `skerry fleet logs cam-01 --since 2h --level warning --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    action = {
        "kind": "logs",
        "since_ms": int((time.time() - _seconds(since, "--since")) * 1000),
        "level": level,
        "lines": lines,
        "process": process,
    }
    (answered,) = _ordered(client, [device], action, expires_in, wait_s)
    if answered["state"] != "done":
        _shown([answered], as_json=as_json)
        return
    content = _unpacked(client.download(f"/api/v1/commands/{answered['id']}/log"))
    if output is not None:
        write_file(output, [content])
    if as_json:
        print_json(answered)
    elif output is None:
        print_lines(content.decode(errors="replace"))
    else:
        say(f"{answered['detail']}, written to {output}")


def _ordered(
    client: OperatorClient,
    devices: Sequence[str],
    action: Mapping[str, object],
    expires_in: str,
    wait_s: float,
) -> list[dict[str, Any]]:
    """Issue a command and wait for the answers; return the commands as they then are."""
    body = {
        "devices": list(devices),
        "action": dict(action),
        "lifetime_s": _seconds(expires_in, "--expires-in"),
    }
    issued: list[dict[str, Any]] = client.post("/api/v1/commands", body)["commands"]
    deadline_s = time.monotonic() + wait_s
    newest = {one["id"]: one for one in issued}
    with waiting() as status:
        while unanswered := [one for one in newest.values() if one["state"] == "open"]:
            waits_for(
                status,
                f"waiting for {len(unanswered)} of {len(issued)} answers "
                f"({', '.join(one['device_id'] for one in unanswered[:3])})",
            )
            if time.monotonic() > deadline_s:
                break
            for one in unanswered:
                newest[one["id"]] = client.get(f"/api/v1/commands/{one['id']}")
            time.sleep(_LOOK_EVERY_S)
    return list(newest.values())


def _shown(answered: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print commands with their answers, and end with the status that they mean.

    Raises:
        typer.Exit: not all are done.
    """
    if as_json:
        print_json({"commands": answered})
    else:
        for one in answered:
            why = f" ({one['detail']})" if one["detail"] else ""
            say(f"{one['device_id']}: {one['state']}{why}")
            result = one["result"] or {}
            if result.get("kind") == "bench":
                print_rows(result["rows"])
            else:
                print_fields({**result, "serving": None, "updates": None})
                say(*_serving(result), *_updates(result))
    states = {one["state"] for one in answered}
    if states & {"open", "expired"}:
        ids = [one["id"] for one in answered if one["state"] == "open"]
        if ids and not as_json:
            warn(f"No answer yet; ask later: skerry fleet command show {ids[0]}")
        raise typer.Exit(_NO_ANSWER)
    if states - {"done"}:
        raise typer.Exit(_NOT_DONE)


def _serving(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a device serves now; nothing if its agent does not say so."""
    for one in result.get("serving") or ():
        where = f"{one['variant']}, {one['backend']} on {one['accelerator']}"
        probation = "" if one["committed"] else ", on probation"
        yield f"  serves: {one['family']} {one['version']} ({where}){probation}"
    if result.get("serving") == []:
        yield "  serves: nothing"


def _updates(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the newest update of each family stands, which need not be what serves."""
    for one in result.get("updates") or ():
        tried = f" at attempt {one['attempts']}" if one["attempts"] > 1 else ""
        why = f" ({one['detail']})" if one["detail"] else ""
        yield f"  newest update: {one['family']} {one['version']}, {one['state']}{tried}{why}"


def _unpacked(content: bytes) -> bytes:
    """Return what gzip holds, up to a bound: a device sent it.

    Raises:
        FleetError: it is damaged, or larger than any log.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(_MAX_LOG_BYTES + 1)
    except (OSError, EOFError) as error:
        raise FleetError(f"the log is damaged: {error}") from error
    if len(found) > _MAX_LOG_BYTES:
        raise FleetError(f"the log has more than {_MAX_LOG_BYTES} bytes")
    return found


def _seconds(text: str, option: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        raise RefusedError(f"{option} {text!r} is not a time: use a number and s, m, h or d")
    return int(match[1]) * _UNITS_S[match[2]]

"""`skerry fleet config`, over the server's API."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_server.errors import FleetError, RefusedError
from fleet_server.operator_client import part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import say, tell, time_text

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Say with which settings agents shall work.\n\n"
    "A configuration holds for the devices that its selector means. A device tries new settings "
    "and goes back to the former ones if it does not work with them. What may be set: "
    "control.log_level, telemetry_window_s, report_interval_s, poll_interval_s, max_bytes_per_s; "
    "runtime.log_level, instances, max_batch, batch_wait_us.",
)

Name = Annotated[str, typer.Argument(help="Name of the configuration.")]


@app.command("list")
def list_configurations(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List configurations; the first that selects a device counts for it."""
    answer = connected(server, token_file, ca).get("/api/v1/configurations")
    print_list(
        answer["configurations"],
        key="configurations",
        columns=("name", "version", "devices", "rank", "settings", "changed"),
        row=lambda one: (
            one["name"],
            str(one["version"]),
            one["selector"],
            str(one["rank"]),
            json.dumps(one["settings"]),
            time_text(one["changed_ms"]),
        ),
        empty="There are no configurations: agents work with their own settings.",
        as_json=as_json,
    )


@app.command("set")
def set_configuration(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Name,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="`section.key=value`, as often as needed.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON file of sections, in the place of --set.")
    ] = None,
    selector: Annotated[str, typer.Option(help="Which devices, by labels and facts.")] = "*",
    rank: Annotated[int, typer.Option(help="Of several, the highest counts.")] = 0,
    description: Annotated[str, typer.Option(help="For those who read it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store a configuration in the place of the one of its name.

    Example: `skerry fleet config set quiet --set control.telemetry_window_s=300 --selector
    site=oslo --server URL --token-file token`
    """
    body = {
        "selector": selector,
        "rank": rank,
        "settings": _settings(setting or [], file),
        "description": description,
    }
    answer = connected(server, token_file, ca).put(f"/api/v1/configurations/{part(name)}", body)
    said = (
        f"Configuration {name} is version {answer['version']}; devices that are there take it up "
        "within a minute. `skerry fleet config devices` says which have."
    )
    tell(answer, said, as_json=as_json)


@app.command("remove")
def remove(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Remove a configuration; its devices take up what counts for them without it."""
    connected(server, token_file, ca).delete(f"/api/v1/configurations/{part(name)}")
    say(f"Configuration {name} is removed.")


@app.command("devices")
def devices(
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    selector: Annotated[str, typer.Option(help="Which devices, by labels and facts.")] = "*",
    as_json: AsJson = False,
) -> None:
    """Show which configuration each device says it works with, and why not with another."""
    client = connected(server, token_file, ca)
    found = (
        {"device": one["id"], **((one["reported"] or {}).get("configuration") or {})}
        for one in client.pages("/api/v1/devices", "devices", {"selector": selector})
    )
    print_list(
        found,
        key="devices",
        columns=("device", "configuration", "version", "refused", "why"),
        row=lambda one: (
            one["device"],
            one.get("name") or "-",
            str(one.get("version") or "-"),
            str(one.get("refused_version") or "-"),
            one.get("problem") or "",
        ),
        empty="There is no such device.",
        as_json=as_json,
    )


def _settings(stated: list[str], file: Path | None) -> object:
    """Return the settings of the options.

    Raises:
        RefusedError: there is none, or an option is not of the form.
        FleetError: the file cannot be read.
    """
    if bool(stated) == (file is not None):
        raise RefusedError(
            "say what to set: --set section.key=value (repeated for more), or else --file; `skerry "
            "fleet config remove` lets a configuration go"
        )
    if file is not None:
        try:
            content: object = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise FleetError(f"cannot read {file}: {error}") from error
        return content
    sections: dict[str, dict[str, Any]] = {}
    for one in stated:
        path, _, text = one.partition("=")
        section, _, key = path.partition(".")
        if not (section and key and text):
            raise RefusedError(f"--set {one!r}: write section.key=value")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        sections.setdefault(section, {})[key] = value
    return sections

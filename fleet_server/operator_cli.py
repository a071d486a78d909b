"""`skerry fleet`: what operators do from anywhere, over the server's API."""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from fleet_server.accounts.claim_cli import claim_admin
from fleet_server.alerts import cli as alerts
from fleet_server.alerts import webhook_cli
from fleet_server.commands import cli as commands
from fleet_server.commands import configuration_cli
from fleet_server.errors import FleetError, RefusedError
from fleet_server.operator_client import ApiError, OperatorClient
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_json, print_table, say, time_text, warn
from fleet_server.rollouts import cli as rollouts
from fleet_server.rollouts import following_cli

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look at devices, releases and telemetry, and assign releases, over the server's API.",
)

# What there is: the plural. What is done to one of them: the singular.
app.command("rollouts")(following_cli.list_rollouts)
app.add_typer(rollouts.app, name="rollout")
app.command("alerts")(alerts.list_alerts)
app.add_typer(alerts.app, name="alert")
app.command("silences")(alerts.list_silences)
app.add_typer(alerts.silences, name="silence")
app.command("webhooks")(webhook_cli.list_webhooks)
app.add_typer(webhook_cli.app, name="webhook")
app.add_typer(commands.app, name="command")
app.command("logs")(commands.logs)
app.add_typer(configuration_cli.app, name="config")
app.command("claim-admin")(claim_admin)

_DAY_MS = 86_400_000
_EXPIRY_WARNING_DAYS = 30
_COLOURS = {
    "updated": "green",
    "failed": "red",
    "updating": "yellow",
    "waiting": "yellow",
    "ok": "green",
    "warning": "yellow",
    "critical": "red",
    "expired": "red",
}


@app.command()
def devices(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    device: Annotated[str | None, typer.Argument(help="One device, with all details.")] = None,
    selector: Annotated[
        str | None, typer.Option(help="By labels and facts: `site=oslo,ram_gib>=2,!legacy`.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="Part of the id.")] = None,
    group: Annotated[str | None, typer.Option(help="Only the devices of a group.")] = None,
    health: Annotated[str | None, typer.Option(help="Only this health, such as offline.")] = None,
    as_json: AsJson = False,
) -> None:
    """List devices: online or not, what they run, how far their update is.

    The column `certificate` is empty unless a device's certificate expires within 30 days.

    Example: `skerry fleet devices --server https://localhost:8443 --token-file token --ca ca.crt`
    """
    client = connected(server, token_file, ca)
    if device is not None:
        print_json(client.get(f"/api/v1/devices/{quote(device, safe='')}"))
        return
    asked = {"selector": selector, "search": search, "group": group, "health": health}
    fields = {name: value for name, value in asked.items() if value is not None}
    found = list(client.pages("/api/v1/devices", "devices", fields))
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    if as_json:
        print_json({"devices": found})
        return
    print_table(
        ("device", "health", "last seen", "update", "certificate", "runs"),
        [
            [
                item["id"],
                item["health"],
                time_text(item["last_seen_ms"]),
                _coloured(item["update"]),
                _certificate(item, now_ms),
                _running(item),
            ]
            for item in found
        ],
        empty="No device is enrolled." if not fields else "No such device is enrolled.",
    )
    _warn_of_expiries(client)


@app.command()
def label(
    *,
    device: Annotated[str, typer.Argument(help="Device id.")],
    labels: Annotated[list[str], typer.Argument(help="NAME=VALUE sets a label, NAME- removes it.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
) -> None:
    """Set and remove labels of a device.

    Example: `skerry fleet label cam-01 site=oslo legacy- --server URL --token-file token`
    """
    changes: dict[str, str | None] = {}
    for text in labels:
        name, separator, value = text.partition("=")
        if not separator and not text.endswith("-"):
            raise RefusedError(f"{text[:80]!r}: use NAME=VALUE to set a label, NAME- to remove it")
        changes[name if separator else text.removesuffix("-")] = value if separator else None
    client = connected(server, token_file, ca)
    answer = client.patch(f"/api/v1/devices/{quote(device, safe='')}/labels", {"labels": changes})
    shown = ", ".join(f"{name}={value}" for name, value in answer["labels"].items())
    say(f"{device}: {shown or 'no labels'}")


@app.command()
def groups(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    name: Annotated[str | None, typer.Argument(help="A group to save.")] = None,
    selector: Annotated[str | None, typer.Option(help="What the group selects.")] = None,
    as_json: AsJson = False,
) -> None:
    """List groups; with a name and a selector, save one.

    Example: `skerry fleet groups north --selector site=oslo --server URL --token-file token`
    """
    if (name is None) != (selector is None):
        raise RefusedError("to save a group, give its name and --selector")
    client = connected(server, token_file, ca)
    if name is not None:
        client.put(f"/api/v1/groups/{quote(name, safe='')}", {"selector": selector})
    found = list(client.pages("/api/v1/groups", "groups", {}))
    if as_json:
        print_json({"groups": found})
        return
    print_table(
        ("group", "selector", "description"),
        [[item["name"], item["selector"], item["description"]] for item in found],
        empty="There is no group.",
    )


@app.command()
def releases(
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    as_json: AsJson = False,
) -> None:
    """List published releases.

    Example: `skerry fleet releases --family fashion_mnist --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    fields = {"family": family} if family else {}
    found = list(client.pages("/api/v1/releases", "releases", fields))
    if as_json:
        print_json({"releases": found})
        return
    print_table(
        ("family", "version", "published", "size", "security counter", "description"),
        [
            [
                item["family"],
                item["version"],
                time_text(item["published_ms"]),
                f"{item['size_bytes']:,}",
                str(item["security_counter"]),
                item["description"][:60],
            ]
            for item in found
        ],
        numbers={"size", "security counter"},
        empty="No release is published.",
    )


@app.command()
def assign(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    family: Annotated[str, typer.Argument(help="Model family.")],
    version: Annotated[str, typer.Argument(help="Release version.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    device: Annotated[list[str] | None, typer.Option(help="Device id. Repeat for more.")] = None,
    to_all: Annotated[bool, typer.Option("--all", help="All devices.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let devices run a release; their other families stay as they are.

    Repeating it makes a device try a release again that failed on it.

    Example: `skerry fleet assign fashion_mnist 1.0.0 --device cam-01 --server URL
    --token-file token`
    """
    if bool(device) == to_all:
        raise RefusedError("say to which devices: --device ID (repeated for more), or --all")
    client = connected(server, token_file, ca)
    body = {"family": family, "version": version, "devices": None if to_all else device}
    answer = client.put("/api/v1/assignments", body)
    if as_json:
        print_json(answer)
        return
    ids = [item["device_id"] for item in answer["assigned"]]
    say(f"{family} {version} is assigned to {len(ids)} device(s): {_listed(ids)}")


@app.command()
def telemetry(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=744, help="How far back.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Sum up what the fleet (or one device) did: requests, errors, latency by release.

    Example: `skerry fleet telemetry --hours 24 --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    end = int(datetime.now(UTC).timestamp() * 1000) + 1
    fields = {"from": str(end - int(hours * 3_600_000)), "to": str(end)}
    path = "/api/v1/telemetry/summary"
    if device is not None:
        path = f"/api/v1/telemetry/devices/{quote(device, safe='')}/summary"
    answer = client.get(path, fields)
    if as_json:
        print_json(answer)
        return
    print_table(
        ("family", "version", "devices", "requests", "errors", "p50 ms", "p95 ms", "p99 ms"),
        [
            [
                item["family"],
                item["version"],
                str(item["devices"]),
                f"{item['requests']:,}",
                f"{sum(item['errors'].values()):,}",
                *(_ms(item["latency"][key]) for key in ("p50_us", "p95_us", "p99_us")),
            ]
            for item in answer["releases"]
        ],
        numbers={"devices", "requests", "errors", "p50 ms", "p95 ms", "p99 ms"},
        empty="No telemetry of that time is stored.",
    )


@app.command()
def decommission(
    *,
    device: Annotated[str, typer.Argument(help="Device id.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
) -> None:
    """Shut a device out for good: its certificate and tokens are refused from now on.

    Example: `skerry fleet decommission cam-01 --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    client.post(f"/api/v1/devices/{quote(device, safe='')}/decommission")
    say(f"{device} is decommissioned.")


@app.command()
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


@app.command()
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
    answer = connected(server, token_file, ca).get("/api/v1/trust/expiries")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("what", "level", "days left", "keys", "what to do"),
        [
            [
                item["name"],
                _coloured(item["level"]),
                f"{item['days_left']:.1f}",
                " ".join(keyid[:8] for keyid in item["key_ids"]),
                item["action"] if item["level"] != "ok" else "",
            ]
            for item in answer["expiries"]
        ],
        numbers={"days left"},
        empty="Nothing runs out.",
    )


def _warn_of_expiries(client: OperatorClient) -> None:
    """Say on standard error what runs out soon; a server that does not tell is no error."""
    with contextlib.suppress(ApiError):
        _tell_expiries(client.get("/api/v1/trust/expiries")["expiries"])


def _tell_expiries(expiries: Iterable[Mapping[str, Any]]) -> None:
    for item in expiries:
        if item["level"] != "ok":
            warn(
                f"{item['level'].upper()}: {item['name']} has {item['days_left']:.1f} days left; "
                f"{item['action']}"
            )


def _running(item: Mapping[str, Any]) -> str:
    running = (item["reported"] or {}).get("running", [])
    return ", ".join(
        f"{model['family']} {model['version']} ({model['variant']})" for model in running
    )


def _certificate(item: Mapping[str, Any], now_ms: int) -> Text:
    """Return how long the certificate of a device lives on, if that is not long."""
    left_ms = item["certificate_expires_ms"] - now_ms
    if item["decommissioned_ms"] is not None or left_ms > _EXPIRY_WARNING_DAYS * _DAY_MS:
        return Text()
    if left_ms <= 0:
        return Text("expired", "red")
    return Text(f"{left_ms // _DAY_MS} days left", "yellow")


def _coloured(word: str) -> Text:
    return Text(word, _COLOURS.get(word, ""))


def _ms(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1000:.2f}"


def _listed(ids: list[str], most: int = 8) -> str:
    return ", ".join(ids[:most]) + (" ..." if len(ids) > most else "")

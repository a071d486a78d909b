"""`skerry fleet alerts`, `alert`, `silences` and `silence`, over the server's API."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from fleet_server.alerts import rule_cli
from fleet_server.duration import duration
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_fields, print_json, say, tell, time_text

app = typer.Typer(no_args_is_help=True, help="Look at one alert, and say what an alert is.")
silences = typer.Typer(no_args_is_help=True, help="Keep notices of some alerts back for a time.")
app.add_typer(rule_cli.app, name="rules")


def list_alerts(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    state: Annotated[str, typer.Option(help="pending, firing, resolved or all.")] = "firing",
    rule: Annotated[str | None, typer.Option(help="Only of this rule.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only info, warning or critical.")] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    as_json: AsJson = False,
) -> None:
    """List alerts, the newest first: those that fire, unless others are asked for.

    Example: `skerry fleet alerts --state all --device cam-01 --server URL --token-file token`
    """
    fields = {
        "state": None if state == "all" else state,
        "rule": rule,
        "severity": severity,
        "device": device,
    }
    found = connected(server, token_file, ca).pages("/api/v1/alerts", "alerts", fields)
    print_list(
        found,
        key="alerts",
        columns=("id", "severity", "state", "rule", "device", "since", "what"),
        row=lambda item: (
            str(item["id"]),
            item["severity"],
            item["state"],
            item["rule"],
            item["device_id"],
            time_text(item["fired_ms"] or item["began_ms"]),
            item["detail"],
        ),
        empty="There is no such alert.",
        as_json=as_json,
    )


@app.command()
def show(
    *,
    alert: Annotated[int, typer.Argument(help="Number of the alert.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one alert: since when, whether it was notified, and why it fires.

    Example: `skerry fleet alert show 12 --server URL --token-file token`
    """
    found = connected(server, token_file, ca).get(f"/api/v1/alerts/{alert}")
    if as_json:
        print_json(found)
        return
    say(f"alert {alert}: {found['rule']} of {found['device_id']}, {found['state']}")
    print_fields(
        {
            "severity": found["severity"],
            "family": found["family"],
            "began": time_text(found["began_ms"]),
            "fired": time_text(found["fired_ms"]),
            "resolved": time_text(found["resolved_ms"]),
            "webhooks were told": "yes" if found["notified"] else "no",
            "what": found["detail"],
        }
    )


def list_silences(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List silences, the newest first, and for a while those that ended."""
    client = connected(server, token_file, ca)
    found = client.pages("/api/v1/alert-silences", "silences")
    print_list(
        found,
        key="silences",
        columns=("id", "devices", "rule", "from", "to", "by", "reason"),
        row=lambda item: (
            str(item["id"]),
            item["selector"],
            item["rule"] or "all",
            time_text(item["starts_ms"]),
            time_text(item["ends_ms"]),
            item["created_by"],
            item["reason"],
        ),
        empty="There are no silences.",
        as_json=as_json,
    )


@silences.command("create")
def create_silence(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    selector: Annotated[str, typer.Argument(help="Which devices: `site=oslo`, or `*` for all.")],
    lasts: Annotated[str, typer.Option("--for", help="How long, such as 30m, 8h or 2d.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    rule: Annotated[str | None, typer.Option(help="Only alerts of this rule.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep notices back from now on; what still fires at the end is notified then.

    Example: `skerry fleet silence create site=oslo --for 2h --reason "power works" --server URL
    --token-file token`
    """
    ends_ms = int((datetime.now(UTC) + duration(lasts, option="--for")).timestamp() * 1000)
    body = {"selector": selector, "rule": rule, "ends_ms": ends_ms, "reason": reason}
    answer = connected(server, token_file, ca).post("/api/v1/alert-silences", body)
    said = f"Silence {answer['id']} lasts until {time_text(answer['ends_ms'])}."
    tell(answer, said, as_json=as_json)


@silences.command("end")
def end_silence(
    *,
    silence: Annotated[int, typer.Argument(help="Number of the silence.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """End a silence now."""
    answer = connected(server, token_file, ca).post(f"/api/v1/alert-silences/{silence}/end")
    tell(answer, f"Silence {silence} is over.", as_json=as_json)

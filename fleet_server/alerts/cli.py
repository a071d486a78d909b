"""`skerry fleet alerts`, `alert rules`, `silences` and `silence`, over the server's API."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from fleet_server.duration import duration
from fleet_server.operator_client import part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import say, tell, time_text

app = typer.Typer(no_args_is_help=True, help="Say what an alert is.")
rules = typer.Typer(no_args_is_help=True, help="Rules: which signal of which devices is an alert.")
silences = typer.Typer(no_args_is_help=True, help="Keep notices of some alerts back for a time.")
app.add_typer(rules, name="rules")

Name = Annotated[str, typer.Argument(help="Name of the rule.")]


def list_alerts(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    state: Annotated[str, typer.Option(help="pending, firing, resolved or all.")] = "firing",
    rule: Annotated[str | None, typer.Option(help="Only of this rule.")] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    as_json: AsJson = False,
) -> None:
    """List alerts, the newest first: those that fire, unless others are asked for.

    Example: `skerry fleet alerts --state all --device cam-01 --server URL --token-file token`
    """
    fields = {"state": None if state == "all" else state, "rule": rule, "device": device}
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


@rules.command("list")
def list_rules(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List the rules that hold, those that every fleet has by default included."""
    answer = connected(server, token_file, ca).get("/api/v1/alert-rules")
    print_list(
        answer["rules"],
        key="rules",
        columns=("rule", "signal", "fires at", "resolves at", "for", "severity", "devices", ""),
        row=lambda item: (
            item["name"],
            item["signal"],
            f"{item['fires_at']:g}",
            f"{item['resolves_at']:g}",
            f"{item['for_s']:g} s",
            item["severity"],
            item["selector"],
            "default" if item["default"] else "" if item["enabled"] else "disabled",
        ),
        empty="There are no rules.",
        as_json=as_json,
    )


@rules.command("set")
def set_rule(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Name,
    signal: Annotated[str, typer.Option(help="What it looks at, such as p95_ms.")],
    fires_at: Annotated[float, typer.Option(help="The first bad value.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    resolves_at: Annotated[
        float | None, typer.Option(help="A good value lies beyond it; without it, fires-at.")
    ] = None,
    for_s: Annotated[float, typer.Option(help="How long it has to be bad, in seconds.")] = 0,
    resolve_for_s: Annotated[float, typer.Option(help="How long it has to be good.")] = 0,
    window_s: Annotated[float, typer.Option(help="How far back it looks.")] = 600,
    min_calls: Annotated[int, typer.Option(help="With fewer calls nothing is known.")] = 50,
    selector: Annotated[str, typer.Option(help="Which devices, by labels and facts.")] = "*",
    family: Annotated[str | None, typer.Option(help="Only this model family.")] = None,
    severity: Annotated[str, typer.Option(help="info, warning or critical.")] = "warning",
    enabled: Annotated[bool, typer.Option(help="Whether it is looked at.")] = True,
    description: Annotated[str, typer.Option(help="For those who are told.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store a rule in the place of the one of its name, a default one included.

    Example: `skerry fleet alert rules set slow --signal p95_ms --fires-at 50 --resolves-at 40
    --for-s 300 --server URL --token-file token`
    """
    body = {
        "signal": signal,
        "fires_at": fires_at,
        "resolves_at": resolves_at,
        "for_s": for_s,
        "resolve_for_s": resolve_for_s,
        "window_s": window_s,
        "min_calls": min_calls,
        "selector": selector,
        "family": family,
        "severity": severity,
        "enabled": enabled,
        "description": description,
    }
    answer = connected(server, token_file, ca).put(f"/api/v1/alert-rules/{part(name)}", body)
    tell(answer, f"The rule {name} holds from the next look on.", as_json=as_json)


@rules.command("remove")
def remove_rule(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Remove a stored rule; its alerts resolve, and a default of its name holds again."""
    connected(server, token_file, ca).delete(f"/api/v1/alert-rules/{part(name)}")
    say(f"The rule {name} is removed.")


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

"""`skerry fleet alert rules`: which signal of which devices is an alert, over the server's API."""

from typing import Annotated

import typer

from fleet_server.errors import RefusedError
from fleet_server.operator_client import part
from fleet_server.operator_lists import print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_fields, print_json, say, tell

app = typer.Typer(no_args_is_help=True, help="Rules: which signal of which devices is an alert.")

Name = Annotated[str, typer.Argument(help="Name of the rule.")]
Signal = Annotated[str | None, typer.Option(help="What it looks at, such as p95_ms.")]
FiresAt = Annotated[float | None, typer.Option(help="The first bad value.")]
ResolvesAt = Annotated[float | None, typer.Option(help="A good value lies beyond it.")]
ForS = Annotated[float | None, typer.Option(help="How long it has to be bad, in seconds.")]
ResolveForS = Annotated[float | None, typer.Option(help="How long it has to be good.")]
WindowS = Annotated[float | None, typer.Option(help="How far back it looks.")]
MinCalls = Annotated[int | None, typer.Option(help="With fewer calls nothing is known.")]
Selector = Annotated[str | None, typer.Option(help="Which devices, by labels and facts.")]
Family = Annotated[str | None, typer.Option(help="Only this model family.")]
Severity = Annotated[str | None, typer.Option(help="info, warning or critical.")]
Enabled = Annotated[bool | None, typer.Option(help="Whether it is looked at.")]
Description = Annotated[str | None, typer.Option(help="For those who are told.")]

_ROOT = "/api/v1/alert-rules"


@app.command("list")
def list_rules(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List the rules that hold, those that every fleet has by default included."""
    answer = connected(server, token_file, ca).get(_ROOT)
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


@app.command()
def show(
    *,
    name: Name,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one rule whole.

    Example: `skerry fleet alert rules show device-offline --server URL --token-file token`
    """
    found = connected(server, token_file, ca).get(_path(name))
    if as_json:
        print_json(found)
    else:
        say(f"rule {name}")
        print_fields({key: value for key, value in found.items() if key != "name"})


@app.command("set")
def set_rule(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Name,
    signal: Annotated[str, typer.Option(help="What it looks at, such as p95_ms.")],
    fires_at: Annotated[float, typer.Option(help="The first bad value.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    resolves_at: ResolvesAt = None,
    for_s: ForS = None,
    resolve_for_s: ResolveForS = None,
    window_s: WindowS = None,
    min_calls: MinCalls = None,
    selector: Selector = None,
    family: Family = None,
    severity: Severity = None,
    enabled: Enabled = None,
    description: Description = None,
    as_json: AsJson = False,
) -> None:
    """Store a rule in the place of the one of its name, a default one included.

    What is not given: it resolves at --fires-at, for-s and resolve-for-s 0, window-s 600,
    min-calls 50, all devices, every family, severity warning. `change` leaves it as it is instead.

    Example: `skerry fleet alert rules set slow --signal p95_ms --fires-at 50 --resolves-at 40
    --for-s 300 --server URL --token-file token`
    """
    body = _stated(
        signal=signal,
        fires_at=fires_at,
        resolves_at=resolves_at,
        for_s=for_s,
        resolve_for_s=resolve_for_s,
        window_s=window_s,
        min_calls=min_calls,
        selector=selector,
        family=family,
        severity=severity,
        enabled=enabled,
        description=description,
    )
    answer = connected(server, token_file, ca).put(_path(name), body)
    tell(answer, f"The rule {name} holds from the next look on.", as_json=as_json)


@app.command()
def change(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Name,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    signal: Signal = None,
    fires_at: FiresAt = None,
    resolves_at: ResolvesAt = None,
    for_s: ForS = None,
    resolve_for_s: ResolveForS = None,
    window_s: WindowS = None,
    min_calls: MinCalls = None,
    selector: Selector = None,
    family: Family = None,
    severity: Severity = None,
    enabled: Enabled = None,
    description: Description = None,
    as_json: AsJson = False,
) -> None:
    """Change some of a rule, a default one included; what is not given stays as it is.

    Example: `skerry fleet alert rules change slow --fires-at 60 --no-enabled --server URL
    --token-file token`
    """
    client = connected(server, token_file, ca)
    changes = _stated(
        signal=signal,
        fires_at=fires_at,
        resolves_at=resolves_at,
        for_s=for_s,
        resolve_for_s=resolve_for_s,
        window_s=window_s,
        min_calls=min_calls,
        selector=selector,
        family=family,
        severity=severity,
        enabled=enabled,
        description=description,
    )
    if not changes:
        raise RefusedError("say what to change, such as --fires-at 60 or --no-enabled")
    held = client.get(_path(name))
    body = {key: value for key, value in held.items() if key not in {"name", "default"}}
    answer = client.put(_path(name), body | changes)
    tell(answer, f"The rule {name} holds so from the next look on.", as_json=as_json)


@app.command("remove")
def remove_rule(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Remove a stored rule; its alerts resolve, and a default of its name holds again."""
    connected(server, token_file, ca).delete(_path(name))
    say(f"The rule {name} is removed.")


def _stated(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _path(name: str) -> str:
    return f"{_ROOT}/{part(name)}"

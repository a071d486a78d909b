"""`skerry fleet webhooks` and `webhook`: where notices go; for administrators."""

from typing import Annotated

import typer

from fleet_server.operator_client import part
from fleet_server.operator_lists import Item, print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_fields, print_json, say, time_text

app = typer.Typer(no_args_is_help=True, help="Where notices of alerts and rollouts go.")

Name = Annotated[str, typer.Argument(help="Name of the webhook.")]

_ROOT = "/api/v1/alert-webhooks"


def list_webhooks(
    *, server: Server, token_file: TokenFile, ca: CaFile = None, as_json: AsJson = False
) -> None:
    """List webhooks; their secrets are not shown."""
    answer = connected(server, token_file, ca).get(_ROOT)
    print_list(
        answer["webhooks"],
        key="webhooks",
        columns=("webhook", "from severity", "url", ""),
        row=lambda item: (
            item["name"],
            item["min_severity"],
            item["url"],
            "" if item["disabled_ms"] is None else "off: it answered that it is gone",
        ),
        empty="There is no webhook.",
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
    """Show one webhook; its secret is not shown.

    Example: `skerry fleet webhook show pager --server URL --token-file token`
    """
    found = connected(server, token_file, ca).get(_path(name))
    if as_json:
        print_json(found)
        return
    off = found["disabled_ms"]
    say(f"webhook {name}: {found['url']}")
    print_fields(
        {
            "from severity": found["min_severity"],
            "made": time_text(found["created_ms"]),
            "off": "" if off is None else f"it answered at {time_text(off)} that it is gone",
        }
    )


@app.command()
def create(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Name,
    url: Annotated[str, typer.Option(help="An https URL that takes the notices.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    min_severity: Annotated[str, typer.Option(help="info, warning or critical.")] = "info",
) -> None:
    """Make a webhook and print it with its secret, which is not shown again."""
    body = {"name": name, "url": url, "min_severity": min_severity}
    print_json(connected(server, token_file, ca).post(_ROOT, body))


@app.command()
def rotate(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Make a new secret and print it; for a day notices are signed with both."""
    print_json(connected(server, token_file, ca).post(f"{_path(name)}/secret"))


@app.command("test")
def try_out(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Send a notice that says nothing; `deliveries` says whether it arrived."""
    print_json(connected(server, token_file, ca).post(f"{_path(name)}/test"))


@app.command()
def enable(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Send notices again to a receiver that had answered 410 Gone."""
    print_json(connected(server, token_file, ca).post(f"{_path(name)}/enable"))


@app.command()
def remove(*, name: Name, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Remove a webhook; what waits for it is given up."""
    connected(server, token_file, ca).delete(_path(name))
    say(f"The webhook {name} is removed.")


@app.command()
def deliveries(
    *,
    name: Name,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List the notices of a webhook, the newest first: which arrived, and what went wrong.

    Example: `skerry fleet webhook deliveries pager --server URL --token-file token`
    """
    print_list(
        connected(server, token_file, ca).pages(f"{_path(name)}/deliveries", "deliveries"),
        key="deliveries",
        columns=("event", "kind", "made", "attempts", "state", "problem"),
        row=lambda item: (
            item["event_id"],
            item["kind"],
            time_text(item["created_ms"]),
            str(item["attempts"]),
            _state(item),
            item["problem"],
        ),
        empty="Nothing was sent there yet.",
        numbers={"attempts"},
        as_json=as_json,
    )


def _state(delivery: Item) -> str:
    if delivery["delivered_ms"] is not None:
        return f"arrived {time_text(delivery['delivered_ms'])}"
    if delivery["due_ms"] is not None:
        return f"tried next {time_text(delivery['due_ms'])}"
    return "given up"


def _path(name: str) -> str:
    return f"{_ROOT}/{part(name)}"

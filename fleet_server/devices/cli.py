"""`skerry fleet devices` and what operators do to one device, over the server's API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from fleet_protocol.counting import counted
from fleet_server.errors import RefusedError
from fleet_server.operator_client import part
from fleet_server.operator_lists import Everything, Limit, newest, print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import coloured, print_json, say, time_text

Device = Annotated[str, typer.Argument(help="Device id.")]

_DAY_MS = 86_400_000
_EXPIRY_WARNING_DAYS = 30


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
    count: Annotated[bool, typer.Option("--count", help="Say only how many they are.")] = False,
    as_json: AsJson = False,
) -> None:
    """List devices: online or not, what they run, how far their update is.

    The column `certificate` is empty unless a device's certificate expires within 30 days.

    Example: `skerry fleet devices --server https://localhost:8443 --token-file token --ca ca.crt`
    """
    client = connected(server, token_file, ca)
    if device is not None:
        print_json(client.get(_path(device)))
        return
    fields = {"selector": selector, "search": search, "group": group, "health": health}
    if count:
        _print_count(client.get("/api/v1/device-count", fields), as_json=as_json)
        return
    found = client.pages("/api/v1/devices", "devices", fields)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    print_list(
        found,
        key="devices",
        columns=("device", "health", "last seen", "update", "certificate", "runs"),
        row=lambda item: [
            item["id"],
            item["health"],
            time_text(item["last_seen_ms"]),
            coloured(item["update"]),
            _certificate(item, now_ms),
            _running(item),
        ],
        empty="No such device is enrolled." if any(fields.values()) else "No device is enrolled.",
        as_json=as_json,
    )


def label(
    *,
    device: Device,
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
    answer = client.patch(f"{_path(device)}/labels", {"labels": changes})
    shown = ", ".join(f"{name}={value}" for name, value in answer["labels"].items())
    say(f"{device}: {shown or 'no labels'}")


def events(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    device: Device,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as update.")] = None,
    limit: Limit = 100,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """List what a device said about itself: updates, alarms, refusals, the newest last.

    Of more than --limit, the newest are listed; standard error says how many are older.

    Example: `skerry fleet events cam-01 --limit 20 --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    print_list(
        newest(
            client,
            f"{_path(device)}/events",
            "events",
            {"kind": kind},
            limit=None if everything else limit,
            counted_at=f"{_path(device)}/event-count",
        ),
        key="events",
        columns=("when", "kind", "family", "version", "state", "what"),
        row=lambda item: (
            time_text(item["at_ms"]),
            item["kind"],
            item["family"] or "",
            item["version"] or "",
            item["state"] or "",
            item["detail"],
        ),
        empty="No such event is stored.",
        as_json=as_json,
    )


def revoke(*, device: Device, server: Server, token_file: TokenFile, ca: CaFile = None) -> None:
    """Refuse a device's key from now on, such as one that was stolen.

    A claim made with `skerry provision claim --replace` brings the device back with a new key.
    Needs a token of the role admin.

    Example: `skerry fleet revoke cam-01 --server URL --token-file token`
    """
    connected(server, token_file, ca).post(f"{_path(device)}/revoke")
    say(f"{device} is revoked: its key is refused from now on.")


def decommission(
    *,
    device: Device,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
) -> None:
    """Shut a device out for good: its certificate and tokens are refused from now on.

    Example: `skerry fleet decommission cam-01 --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    client.post(f"{_path(device)}/decommission")
    say(f"{device} is decommissioned.")


def _print_count(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        more = "at least " if answer["is_capped"] else ""
        say(more + counted(answer["devices"], "device"))


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


def _path(device: str) -> str:
    return f"/api/v1/devices/{part(device)}"

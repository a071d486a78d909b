"""`skerry server ca`: one certificate authority follows another before the old one ends."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Renew the certificate authorities of a fleet. `skerry fleet expiries` says when.",
)

Data = Annotated[Path, typer.Option(help="The server's data directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(data: Data, *, as_json: AsJson = False) -> None:
    """List the authorities, when they end, and how many devices depend on them.

    Of a device CA `devices` counts those that hold certificates of it, of a new fleet CA those
    that do not trust it yet.

    Example: `skerry server ca show --data DIR`
    """
    from rich.console import Console  # noqa: PLC0415 (only where it is used)
    from rich.table import Table  # noqa: PLC0415

    from fleet_server.clock import utc_now  # noqa: PLC0415
    from fleet_server.trust import ca_commands  # noqa: PLC0415

    found = asyncio.run(ca_commands.status(data.absolute(), clock=utc_now))
    if as_json:
        _print({"authorities": found}, as_json=True)
        return
    table = Table("kind", "key", "state", "expires", "devices")
    for each in found:
        count = "" if each.devices is None else str(each.devices)
        table.add_row(each.kind, each.key[:16], each.state, f"{each.expires:%Y-%m-%d}", count)
    Console().print(table)


@app.command()
def new_device_ca(data: Data, *, as_json: AsJson = False) -> None:
    """Make a device CA that takes over from the present one.

    The running server and its broker trust it within seconds, then it issues what is issued from
    then on. Devices that are online renew their certificates within eight hours. Back the data
    directory up afterwards: it holds the new key.

    With several servers, stop them first (not the brokers), make it on one, copy `device-ca-N.pem`
    and after it `device-ca-N.next.crt` to `online/` of all others, and start them again.

    Example: `skerry server ca new-device-ca --data DIR`
    """
    from fleet_server.clock import utc_now  # noqa: PLC0415
    from fleet_server.trust import ca_commands  # noqa: PLC0415

    files = asyncio.run(ca_commands.make_device_ca(data.absolute(), now=utc_now()))
    key = files.load().key_id
    _print(
        {"key": key, "certificate": str(files.certificate)},
        f"Made the device CA {key[:16]}: {files.certificate}",
        "The running server puts it into office when the broker trusts it. Then look with "
        "`skerry server ca show` until no device depends on the former one, and "
        "`skerry server ca retire-device-ca`.",
        as_json=as_json,
    )


@app.command()
def retire_device_ca(
    data: Data,
    *,
    force: Annotated[
        bool,
        typer.Option(help="Although devices hold certificates of it: MQTT refuses them till then."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Trust the former device CAs no longer and remove their keys.

    Refuses while devices in service hold valid certificates of them, and says how many. Restart
    the broker (and the server, if the broker is embedded) afterwards: what runs remembers them.

    Example: `skerry server ca retire-device-ca --data DIR`
    """
    from fleet_server.clock import utc_now  # noqa: PLC0415
    from fleet_server.trust import ca_commands  # noqa: PLC0415

    gone = asyncio.run(ca_commands.retire_device_cas(data.absolute(), force=force, clock=utc_now))
    _print_retired(
        gone, "device CA", "Restart the broker: it remembers it until then.", as_json=as_json
    )


@app.command()
def adopt_fleet_ca(
    file: Annotated[
        Path, typer.Argument(help="public/fleet-ca-handover.crt of `skerry provision`; no secret.")
    ],
    data: Data,
    *,
    as_json: AsJson = False,
) -> None:
    """Let devices learn a new fleet CA, which will stand behind the server's certificate.

    Devices take it for the signature of the fleet CA that they trust, not for the server's word.
    Nothing else changes until a certificate of the new fleet CA is installed.

    Example: `skerry server ca adopt-fleet-ca fleet-ca-handover.crt --data DIR`
    """
    from fleet_server.cli import read_file  # noqa: PLC0415
    from fleet_server.trust import ca_commands  # noqa: PLC0415

    new = asyncio.run(ca_commands.adopt_fleet_ca(data.absolute(), read_file(file)))
    lines = [f"adopted the fleet CA {key[:16]}" for key in new]
    _print({"adopted": new}, *(lines or ["All of it was known already."]), as_json=as_json)


@app.command()
def retire_fleet_ca(data: Data, *, as_json: AsJson = False) -> None:
    """Trust the fleet CAs no longer that are older than the issuer of the server's certificate.

    Refuses while the server shows a certificate of the oldest one. Devices trust that until it
    ends by itself.

    Example: `skerry server ca retire-fleet-ca --data DIR`
    """
    from fleet_server.trust import ca_commands  # noqa: PLC0415

    gone = asyncio.run(ca_commands.retire_fleet_cas(data.absolute()))
    _print_retired(
        gone,
        "fleet CA",
        "`skerry provision retire-fleet-ca` does the same for claims.",
        as_json=as_json,
    )


def _print_retired(gone: list[str], kind: str, then: str, *, as_json: bool) -> None:
    lines = [f"retired the {kind} {key[:16]}. {then}" for key in gone]
    _print({"retired": gone}, *(lines or [f"There is no former {kind}."]), as_json=as_json)


def _print(document: object, *lines: str, as_json: bool) -> None:
    said = [msgspec.json.encode(document).decode()] if as_json else lines
    sys.stdout.write("\n".join(said) + "\n")

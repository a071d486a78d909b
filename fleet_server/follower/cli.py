"""`skerry server broker-config` and `broker-follow`: Mosquitto beside the server, or elsewhere."""

import asyncio
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import msgspec
import typer

from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.errors import RefusedError

_PORT = typer.Option(min=1, max=65535, help="With --folder: where Mosquitto listens.")


def broker_config(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    data: Annotated[
        Path | None, typer.Option(help="The server's data directory: Mosquitto beside the server.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="A folder on this machine: Mosquitto without a server.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(envvar="SKERRY_FLEET_SERVER", help="With --folder: https://HOST:8443."),
    ] = None,
    device_ca: Annotated[
        Path | None,
        typer.Option(help="With --folder, at first: the server's online/device-ca.crt."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="With --folder, at first: public/fleet-ca.crt.")
    ] = None,
    host: Annotated[str, typer.Option(help="With --folder: where Mosquitto listens.")] = "0.0.0.0",  # noqa: S104 (devices come from elsewhere)
    port: Annotated[int, _PORT] = 8883,
    max_connections: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="With --folder: how many devices.")
    ] = 100_000,
) -> None:
    """Write the configuration of a Mosquitto, and print its path.

    With --data for one that runs beside the server: it takes address and number of connections from
    the settings, its certificates and the list of revoked ones from the data directory. With
    --folder for one on a machine of its own, which `skerry server broker-follow` keeps told; units
    for systemd lie in the folder, and what is still missing is said. Mosquitto runs as the owner of
    the directory. The server uses it with `broker_url = "mqtts://HOST:PORT"`. Make the
    configuration anew after an upgrade and when those settings change.

    Example: `mosquitto -c "$(skerry server broker-config --data DIR)"`
    """
    if (data is None) == (folder is None):
        raise RefusedError("name either the server's directory with --data, or a --folder")
    if data is not None:
        from fleet_server.broker.commands import configure  # noqa: PLC0415 (loaded with its command)

        sys.stdout.write(f"{asyncio.run(configure(data.absolute()))}\n")
        return
    from fleet_server.broker.mosquitto import Listening  # noqa: PLC0415 (loaded with its command)
    from fleet_server.follower import setup  # noqa: PLC0415 (loaded with its command)

    if folder is None or server is None:
        raise RefusedError("name the fleet server with --server https://HOST:8443")
    place = folder.absolute()
    apart = setup.Apart(
        folder=place,
        server=server,
        device_ca=device_ca,
        fleet_ca=ca,
        listening=Listening(host, port, max_connections),
    )
    missing = setup.configure(apart)
    sys.stdout.write(f"{MosquittoFiles.apart(place).configuration}\n")
    sys.stderr.write("".join(f"{each}\n" for each in missing))


Folder = Annotated[Path, typer.Option(help="What `skerry server broker-config --folder` made.")]


def broker_follow(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    folder: Folder,
    server: Annotated[
        str, typer.Option(envvar="SKERRY_FLEET_SERVER", help="Address, such as https://HOST:8443.")
    ],
    token_file: Annotated[
        Path | None,
        typer.Option(help="Token of `skerry server token --role broker`; without it FOLDER/token."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="CAs of the server's certificate; without it FOLDER/fleet-ca.crt."),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, help="Seconds between two questions.")
    ] = 15.0,
    once: Annotated[
        bool, typer.Option("--once", help="Ask once and end; status 1 if that fails.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: print JSON.")] = False,
) -> None:
    """Tell the Mosquitto on this machine whom to refuse, as the fleet server says, until SIGTERM.

    It asks again and again over HTTPS, writes device CAs and revocation lists for Mosquitto, makes
    it read them, and ends the sessions of devices that are shut out. It believes no CA and no list
    that the device CAs did not sign, and none that is older than what it holds. While the server is
    away everything stays as it is.

    Example: `skerry server broker-follow --folder /var/lib/skerry-broker --server https://HOST:8443`
    """
    from fleet_server import logs  # noqa: PLC0415 (loaded with its command)
    from fleet_server.clock import utc_now  # noqa: PLC0415 (loaded with its command)
    from fleet_server.follower import setup  # noqa: PLC0415 (loaded with its command)
    from fleet_server.follower.following import Following  # noqa: PLC0415 (loaded with its command)
    from fleet_server.follower.source import Source  # noqa: PLC0415 (loaded with its command)

    place = folder.absolute()
    setup.claim(place)
    source = Source(
        server=server, token_file=token_file or place / setup.TOKEN, ca=ca or place / setup.FLEET_CA
    )
    files = MosquittoFiles.apart(place)
    following = Following(files=files, fetch=source.fetch, clock=utc_now)
    if once:
        status = following.look()
        if as_json:
            sys.stdout.write(msgspec.json.encode(status).decode() + "\n")
        else:
            sys.stdout.write(
                f"The broker trusts {status.authorities} device CA(s) and refuses {status.refused} "
                f"certificate(s); its lists hold until {status.valid_until}.\n"
            )
        return
    logs.configure("info")
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    following.run(stop, interval_s=interval)

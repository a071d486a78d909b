"""`skerry server`: commands of whoever runs the fleet server, on the server itself."""

import asyncio
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fleet_server.accounts.roles import Role
from fleet_server.duration import duration
from fleet_server.errors import RefusedError
from fleet_server.follower import cli as follower_cli
from fleet_server.trust import cli as ca_cli
from signing_keys import private_files

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Run and look after the fleet server, on the machine where it lives.",
)


Data = Annotated[
    Path,
    typer.Option(help="The server's data directory: `server/` of what `provision init` made."),
]


@app.command()
def run(data: Data) -> None:
    """Start the server: API over HTTPS, MQTT broker, ingest and signer, until SIGTERM.

    Settings stand in `server.toml` in the data directory, below `[server]`, or in the environment
    as `SKERRY_SERVER_<KEY>`: host, https_port, mqtt_port, public_host, database_url (PostgreSQL
    instead of SQLite), broker_url (a Mosquitto of `broker-config` instead of the embedded broker),
    max_connections, revocation_check_s, drain_s, log_level.
    By default it listens on 127.0.0.1 only; set `host` to 0.0.0.0 to let devices in.

    Example: `skerry server run --data /var/lib/skerry-server`
    """
    sys.stdout.flush()
    os.execv(  # noqa: S606 (the server replaces this process, so that it gets the signals)
        sys.executable, [sys.executable, "-m", "fleet_server", "--data", str(data)]
    )


@app.command()
def token(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    name: Annotated[str, typer.Option(help="Whose token it is, for logs and messages.")],
    role: Annotated[
        Role,
        typer.Option(
            help="viewer reads; publisher also uploads releases; operator also assigns them; "
            "broker tells a broker elsewhere whom to refuse; admin does everything."
        ),
    ],
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help="Write it to this new file, mode 600, and do not print it.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose devices it reaches.")] = "default",
    expires: Annotated[str, typer.Option(help="Lifetime such as 12h or 30d.")] = "30d",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make an API token and hand it out, once: the server keeps only its hash.

    Example: `skerry server token --name ci --role publisher --expires 90d --data DIR --out token`
    """
    from fleet_server.token_issue import issue  # noqa: PLC0415 (SQLAlchemy only where it is used)

    checked = _checked_name(name)
    lifetime = duration(expires, option="--expires")
    with nullcontext() if out is None else private_files.new(out, "token") as file:
        text, expiry = asyncio.run(
            issue(data.absolute(), name=checked, role=role, lifetime=lifetime, tenant=tenant)
        )
        if file is not None:
            file.write(f"{text}\n".encode())
    record = {"name": checked, "role": role.value, "expires": expiry.isoformat()}
    if as_json:
        record |= {"token": text} if out is None else {"file": str(out)}
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        return
    sys.stdout.write(text + "\n" if out is None else "")
    sys.stderr.write(
        f"The token of {checked} ({role.value}) is valid until {expiry:%Y-%m-%d %H:%M} UTC. "
        f"{'It is not shown again.' if out is None else f'It is in {out}.'}\n"
    )


@app.command()
def tenant(
    *,
    name: Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9 and hyphens.")],
    data: Data,
    family: Annotated[
        list[str] | None,
        typer.Option(help="A model family that belongs to the tenant from now on. Repeatable."),
    ] = None,
) -> None:
    """Make a tenant, or give one a model family; tenants never see each other.

    What belongs to nobody else belongs to the tenant `default`. Devices come into a tenant with
    claims of `skerry provision claim --tenant NAME`, people with `skerry server token --tenant
    NAME`.

    Example: `skerry server tenant acme --family keyword_spotting --data DIR`
    """
    from fleet_server.tenants import make  # noqa: PLC0415 (loaded with its command)

    families = asyncio.run(make(data.absolute(), name=name, families=family or []))
    sys.stdout.write(f"The tenant {name} has the families: {', '.join(families) or 'none yet'}.\n")


@app.command("admin-claim")
def admin_claim(
    data: Data,
    tenant: Annotated[str, typer.Option(help="Whose admin it makes.")] = "default",
) -> None:
    """Print a claim that makes one admin user, once, within an hour.

    Example: `skerry server admin-claim --data DIR`
    """
    from fleet_server.accounts import commands  # noqa: PLC0415 (loaded with its command)

    sys.stdout.write(asyncio.run(commands.admin_claim(data.absolute(), tenant=tenant)) + "\n")


@app.command()
def migrate(data: Data) -> None:
    """Bring the database to the schema of this version.

    With SQLite the server also does so at start; with PostgreSQL (setting `database_url`) this
    command does it, once, before the servers of a new version start.

    Example: `skerry server migrate --data DIR`
    """
    from fleet_server import migrate as steps  # noqa: PLC0415 (loaded with its command)
    from fleet_server import settings  # noqa: PLC0415 (loaded with its command)
    from fleet_server.data_dir import DataDir  # noqa: PLC0415 (loaded with its command)

    directory = DataDir(data.absolute())
    directory.check()
    url = settings.database_url(settings.load(directory.settings_file, os.environ), directory)
    sys.stdout.write(f"The database has revision {asyncio.run(steps.upgrade(url))}.\n")


app.command("broker-config")(follower_cli.broker_config)
app.command("broker-follow")(follower_cli.broker_follow)


@app.command()
def status(
    data: Data, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show how large the database is, how far back telemetry goes and for how long it is kept.

    Example: `skerry server status --data DIR`
    """
    from datetime import UTC, datetime  # noqa: PLC0415 (loaded with its command)

    from fleet_server import status as storage  # noqa: PLC0415 (loaded with its command)
    from fleet_server.clock import unix_ms  # noqa: PLC0415 (loaded with its command)

    found = asyncio.run(storage.read(data.absolute()))
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    for line in storage.lines(found, now_ms=unix_ms(datetime.now(UTC))):
        sys.stdout.write(line + "\n")


@app.command()
def new_key(
    role: Annotated[str, typer.Argument(help="snapshot, timestamp or assignment.")], data: Data
) -> None:
    """Make a new online signing key beside the one in use; its private half stays here.

    It is used as soon as an adopted root names it. Take the printed .pub.json file to whoever
    drafts that root: `skerry provision ceremony draft-root --add snapshot=FILE`.

    Example: `skerry server new-key timestamp --data DIR`
    """
    from fleet_server.new_key import make  # noqa: PLC0415 (loaded with its command)

    public, keyid = make(data.absolute(), role)
    sys.stdout.write(f"{public}  key {keyid}\n")


@app.command()
def adopt(
    file: Annotated[list[Path], typer.Argument(help="Signed release roots, in order.")],
    data: Data,
) -> None:
    """Adopt new roots of the release repository while the server is stopped.

    For a repository whose online keys were stolen and which does not start any more; with a
    running server use `skerry fleet adopt`.
    """
    from fleet_server.offline_adoption import adopt_roots  # noqa: PLC0415 (loaded with its command)

    for name in adopt_roots(data.absolute(), [read_file(path) for path in file]):
        sys.stdout.write(f"adopted {name}\n")


@app.command()
def install_certificate(
    file: Annotated[
        Path, typer.Argument(help="Certificate of `skerry provision renew-certificate`.")
    ],
    data: Data,
    *,
    force: Annotated[
        bool, typer.Option(help="Although devices do not trust its issuer yet: they are cut off.")
    ] = False,
) -> None:
    """Put a renewed server certificate in place; a running server shows it within seconds.

    One of a new fleet CA is refused while devices do not trust that yet, with how many they are.
    """
    from datetime import UTC, datetime  # noqa: PLC0415 (loaded with its command)

    from fleet_server.clock import utc_now  # noqa: PLC0415 (loaded with its command)
    from fleet_server.data_dir import DataDir  # noqa: PLC0415 (loaded with its command)
    from fleet_server.trust.ca_commands import check_known  # noqa: PLC0415 (loaded with its command)
    from fleet_server.trust.live_certificates import check_renewed, install  # noqa: PLC0415 (loaded with its command)

    directory = DataDir(data.absolute())
    directory.check()
    try:
        renewed = check_renewed(directory.online, read_file(file), now=datetime.now(UTC))
        if not force:
            asyncio.run(check_known(directory.root, renewed, clock=utc_now))
        install(directory.online, renewed)
    except OSError as error:
        raise RefusedError(f"cannot write below {directory.online}: {error}") from error
    sys.stdout.write(f"Valid until {renewed.not_valid_after_utc:%Y-%m-%d}.\n")


def read_file(path: Path) -> bytes:
    """Read a file that was named on the command line.

    Raises:
        RefusedError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RefusedError(f"cannot read {path}: {error.strerror}") from error


app.add_typer(ca_cli.app, name="ca")

audit = typer.Typer(no_args_is_help=True, help="Verify and export the audit trail.")
app.add_typer(audit, name="audit")


@audit.command()
def verify(
    data: Data,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TENANT=NUMBER:SHA256",
            help="A head that was noted earlier and must still be part of the trail. Repeatable.",
        ),
    ] = None,
) -> None:
    """Check that no entry of the audit trail was changed, removed or inserted.

    It prints the head of each tenant's chain. Note it elsewhere: entries cut off at the end leave
    a chain that holds, and only a head that was noted, given with --expect, shows it.

    Example: `skerry server audit verify --data DIR --expect default=120:5f3c...`
    """
    from fleet_server.audit import commands  # noqa: PLC0415 (loaded with its command)

    heads = asyncio.run(commands.verify(data.absolute(), expected=expect or []))
    for tenant, head in heads.items():
        sys.stdout.write(f"{tenant}={head}\n")
    sys.stderr.write("The audit trail is whole.\n")


@audit.command()
def export(
    data: Data, tenant: Annotated[str, typer.Option(help="Whose trail.")] = "default"
) -> None:
    """Write a tenant's audit trail to standard output, as JSON lines.

    Example: `skerry server audit export --data DIR > audit.jsonl`
    """
    from fleet_server.audit import commands  # noqa: PLC0415 (loaded with its command)

    asyncio.run(commands.export(data.absolute(), tenant=tenant, write=sys.stdout.buffer.write))


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}", name):
        raise RefusedError(f"--name {name[:100]!r}: use 1 to 100 letters, digits and . _ @ -")
    return name

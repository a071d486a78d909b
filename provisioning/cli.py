"""`skerry provision`: the commands of the people who hold the offline keys."""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet_protocol.plain_text import plain
from provisioning import (
    ceremony,
    ceremony_cli,
    ceremony_files,
    certificates,
    durable_files,
    fleet_ca,
    inspection,
    renewal,
)
from provisioning.ceremony import Quorum
from provisioning.claim_issue import MAX_LIFETIME, ClaimIssuer
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from signing_keys import passphrases

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make and look after a fleet's roots of trust. Runs offline, on a machine of your own.",
)
app.add_typer(ceremony_cli.app, name="ceremony")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        envvar=passphrases.FILE_VARIABLE,
        help="File whose only line is the passphrase of the offline keys; asked for without it.",
    ),
]


RootKeys = Annotated[
    int, typer.Option(help="How many keys sign roots. 3 survive the loss or theft of one.")
]
TargetsKeys = Annotated[int, typer.Option(help="How many keys name publishers.")]
PublisherKeys = Annotated[
    int, typer.Option(help="How many keys each family's releases may be signed with.")
]
Threshold = Annotated[
    int | None,
    typer.Option(help="How many of them must sign; more than half of them without it."),
]


@app.command()
def init(  # noqa: PLR0913, PLR0917 (each is an option that a person gives)
    out: Annotated[Path, typer.Option(help="Directory to make: absent, or empty.")],
    family: Annotated[
        list[str], typer.Option(help="Model family, such as fashion_mnist. Repeat for more.")
    ],
    server_name: Annotated[
        list[str],
        typer.Option(
            help="DNS name or IP address under which devices reach the server. Repeat for more."
        ),
    ],
    root_keys: RootKeys = 1,
    root_threshold: Threshold = None,
    targets_keys: TargetsKeys = 1,
    targets_threshold: Threshold = None,
    publisher_keys: PublisherKeys = 1,
    publisher_threshold: Threshold = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the keys, certificates and first signed metadata of a new fleet.

    Below the directory: `offline/` holds the keys that sign for the fleet, encrypted with the
    passphrase; keep them off every server and in a backup. `public/` may be shown to anyone.
    `server/` is the server's data directory: move it there.

    One key for each role is made unless you ask for more. With `--root-keys 3` any two of three
    sign a new root: move `offline/root.1.pem`, `root.2.pem` and `root.3.pem` to three places, and
    the loss or theft of one of them is mended by the other two. All have the same passphrase at
    first. For people who shall make their own keys on machines of their own, see `skerry provision
    ceremony` and docs/key-ceremony.md.

    Example: `skerry provision init --out authority --family fashion_mnist
    --server-name fleet.example.org --root-keys 3 --targets-keys 2 --targets-threshold 1`
    """
    plan = ceremony.Plan.of(
        families=family,
        server_names=server_name,
        root=Quorum.of("root", keys=root_keys, threshold=root_threshold),
        targets=Quorum.of("targets", keys=targets_keys, threshold=targets_threshold),
        publisher=Quorum.of("publisher", keys=publisher_keys, threshold=publisher_threshold),
    )
    authority = ceremony.create(
        out, plan, passphrase=passphrases.chosen(passphrase_file), now=datetime.now(UTC)
    )
    sys.stdout.write(
        f"Made the authority {authority.root}\n"
        f"  {authority.offline}  offline keys, encrypted: back them up, keep them off servers\n"
        f"  {authority.public}   roots of trust, for anyone\n"
        f"  {authority.server}   the server's data directory\n"
        f"Next: move {authority.server} to the server and start it there with "
        "`skerry server run --data DIR`\n"
    )


@app.command()
def claim(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    authority: Annotated[Path, typer.Option(help="What `skerry provision init` made.")],
    device: Annotated[list[str], typer.Option(help="Device id, such as cam-01. Repeat for more.")],
    out: Annotated[Path, typer.Option(help="File of the claim; for several devices a directory.")],
    expires: Annotated[
        str, typer.Option(help="How long the device has to enrol: 30m, 12h, 7d.")
    ] = "7d",
    floor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAMILY=N",
            help="Lowest security counter of a family that the device may install.",
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="The tenant of a shared server to whom the device belongs.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Label that the device gets. Repeat for more."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="For devices that are enrolled already: they get a new key and certificate.",
        ),
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the claims with which new devices introduce themselves, one file for each.

    A claim is a secret that works once: carry it to its device, then
    `skerry agent enroll --claim FILE` there. A device whose certificate expired or whose key was
    revoked comes back the same way, with a claim made with `--replace`; what it runs stays.

    Examples: `skerry provision claim --authority authority --device cam-01 --out cam-01.json`, or
    `... --device cam-01 --device cam-02 --out claims/` for claims/cam-01.json and so on.
    """
    lifetime = _duration(expires)
    floors = _floors(floor or [])
    labels = _labels(label or [])
    files = _claim_files(device, out)
    issuer = ClaimIssuer(Authority(authority), passphrase=passphrases.known(passphrase_file))
    now = datetime.now(UTC)
    claims = {
        path: issuer.issue(
            name,
            now=now,
            lifetime=lifetime,
            floors=floors,
            tenant=tenant,
            labels=labels,
            replaces=replace,
        )
        for name, path in files.items()
    }
    _write_claims(claims)


@app.command()
def renew_certificate(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    authority: Annotated[Path, typer.Option(help="What `skerry provision init` made.")],
    current: Annotated[Path, typer.Option(help="The server's online/tls.crt; it is no secret.")],
    out: Annotated[Path, typer.Option(help="Certificate to write.")],
    server_name: Annotated[
        list[str] | None,
        typer.Option(help="Other names than now under which devices reach the server."),
    ] = None,
    former_ca: Annotated[
        bool,
        typer.Option(
            "--former-ca",
            help="Let the former fleet CA sign, while devices do not all trust the new one.",
        ),
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Renew the server's certificate for its present key; devices need not enrol again.

    Then, on the server: `skerry server install-certificate FILE --data DIR`.
    """
    ceremony_files.check_absent(out)
    try:
        before = current.read_bytes()
    except OSError as error:
        raise ProvisioningError(f"cannot read {current}: {error.strerror}") from error
    made = renewal.renewed_server_certificate(
        Authority(authority),
        before,
        names=certificates.server_names(server_name) if server_name else None,
        passphrase=passphrases.known(passphrase_file),
        now=datetime.now(UTC),
        former_ca=former_ca,
    )
    ceremony_files.write(out, made)
    sys.stdout.write(f"{out}\nNext: skerry server install-certificate {out.name} --data DIR\n")


@app.command()
def new_fleet_ca(
    *,
    authority: Annotated[Path, typer.Option(help="What `skerry provision init` made.")],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a fleet CA that will follow the present one behind the server's certificates.

    `public/fleet-ca.crt` holds both from now on: claims trust both, and operators and publishers
    need the new file. Then, in this order: carry `public/fleet-ca-handover.crt` to the server and
    `skerry server ca adopt-fleet-ca` it, wait until `skerry server ca show` says that every device
    trusts it, and only then `skerry provision renew-certificate`. Begin a year before the end.

    Example: `skerry provision new-fleet-ca --authority authority`
    """
    place = Authority(authority)
    made = fleet_ca.follow(
        place, passphrase=passphrases.known(passphrase_file), now=datetime.now(UTC)
    )
    if json:
        document = {
            "subject": made.subject.rfc4514_string(),
            "expires": made.not_valid_after_utc,
            "handover": str(place.fleet_ca_handover),
        }
        sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")
        return
    sys.stdout.write(
        f"Made {made.subject.rfc4514_string()}, until {made.not_valid_after_utc:%Y-%m-%d}; back up "
        f"{place.offline}\nNext, on the server: skerry server ca adopt-fleet-ca "
        f"{place.fleet_ca_handover.name} --data DIR\n"
    )


@app.command()
def retire_fleet_ca(
    *,
    authority: Annotated[Path, typer.Option(help="What `skerry provision init` made.")],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Let new claims trust the newest fleet CA alone, when the server shows a certificate of it.

    Example: `skerry provision retire-fleet-ca --authority authority`
    """
    gone = [each.subject.rfc4514_string() for each in fleet_ca.retire(Authority(authority))]
    if json:
        sys.stdout.buffer.write(msgspec.json.encode({"retired": gone}) + b"\n")
        return
    for name in gone:
        sys.stdout.write(f"New claims do not trust {name} any more; its key stays in offline/\n")
    if not gone:
        sys.stdout.write("There is no former fleet CA.\n")


@app.command()
def show(
    authority: Annotated[Path, typer.Argument(help="What `skerry provision init` made.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print it as one JSON document.")] = False,
) -> None:
    """Show the keys, roles and certificates of an authority and when they expire.

    Needs no passphrase and changes nothing.
    """
    found = inspection.inspect(Authority(authority), now=datetime.now(UTC))
    if json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        return
    console = Console()
    for table in _tables(found):
        console.print(table)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    lifetime = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
        raise ProvisioningError(
            f"--expires {text[:40]!r}: use a number and s, m, h or d, such as 12h or 7d, "
            f"at most {MAX_LIFETIME.days}d"
        )
    return lifetime


def _floors(texts: Sequence[str]) -> dict[str, int]:
    floors: dict[str, int] = {}
    for text in texts:
        family, separator, number = text.partition("=")
        if not separator or re.fullmatch(r"[0-9]{1,10}", number) is None or family in floors:
            raise ProvisioningError(
                f"--floor {text[:80]!r}: use FAMILY=NUMBER, once for each family, "
                "such as fashion_mnist=3"
            )
        floors[family] = int(number)
    return floors


def _labels(texts: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name in labels:
            raise ProvisioningError(
                f"--label {text[:80]!r}: use NAME=VALUE, once for each name, such as site=oslo"
            )
        labels[name] = value
    return labels


def _claim_files(devices: Sequence[str], out: Path) -> dict[str, Path]:
    names = list(dict.fromkeys(devices))
    if len(names) == 1 and not out.is_dir():
        files = {names[0]: out}
    else:
        files = {name: out / f"{name}.json" for name in names}
    for path in files.values():
        ceremony_files.check_absent(path)
    return files


def _write_claims(claims: dict[Path, bytes]) -> None:
    try:
        for path, content in claims.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            durable_files.replace(path, content, mode=durable_files.PRIVATE_MODE)
            sys.stdout.write(f"{path}\n")
    except OSError as error:
        raise ProvisioningError(f"cannot write the claim: {error}") from error


def _tables(found: inspection.Inspection) -> list[Table]:
    keys = Table("key", "at rest", "mode", title="Private keys here")
    for key in found.keys:
        keys.add_row(_shown(key.file), "encrypted" if key.encrypted else "plain", key.mode)
    roles = Table("role", "keys", "signs", "version", "expires", title="Update metadata")
    for role in found.roles:
        roles.add_row(
            _shown(f"{role.repository} {role.role}"),
            f"{role.threshold} of {len(role.keys)}: "
            + _shown(", ".join(key[:8] for key in role.keys)),
            _shown(" ".join(role.paths)),
            str(role.version or ""),
            _expiry(role.expires, expired=role.expired),
        )
    certificates = Table("certificate", "subject", "names", "expires", title="Certificates")
    for certificate in found.certificates:
        certificates.add_row(
            _shown(certificate.file),
            _shown(certificate.subject),
            "\n".join(map(_shown, certificate.names)),
            _expiry(certificate.expires, expired=certificate.expired),
        )
    tables = [keys, roles, certificates]
    for column in (column for table in tables for column in table.columns):
        column.overflow = "fold"
    return tables


def _shown(text: str) -> str:
    """Return what a file says for rich: no markup, no control characters."""
    return escape(plain(text))


def _expiry(expires: str | None, *, expired: bool) -> str:
    day = (expires or "").partition("T")[0]
    return f"[red]{day} expired[/red]" if expired else day

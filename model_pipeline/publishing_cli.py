"""`skerry model publish` and `yank`: signed with the publisher's key, and sent to a server."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fleet_protocol.plain_text import plain
from model_pipeline import bundle as bundles
from model_pipeline import publisher_key
from model_pipeline.errors import PipelineError
from model_pipeline.release_upload import Progress as Told
from signing_keys import passphrases, token_files
from signing_keys.passphrases import Secrets

if TYPE_CHECKING:
    from model_pipeline.publish import Publisher
    from model_pipeline.withdrawal import Withdrawal

Keys = Annotated[
    list[str] | None,
    typer.Option(
        help="Publisher's key: file:PATH, hsm:ID?label=TOKEN, awskms:... Repeat if several must "
        "sign. Without it the file of `skerry provision init`."
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        envvar=passphrases.FILE_VARIABLE,
        help="File whose only line is the passphrase of the keys; asked for without it.",
    ),
]
PinFile = Annotated[
    Path | None,
    typer.Option(envvar=passphrases.PIN_VARIABLE, help="File with the PIN of the token."),
]


def publish(  # noqa: PLR0913 (each is an option that a person gives)
    bundle: Annotated[Path, typer.Argument(help="Bundle file of `skerry model pack`.")],
    *,
    server: Annotated[str, typer.Option(help="The server, such as https://fleet.example.org:8443")],
    authority: Annotated[
        Path, typer.Option(help="What `skerry provision init` made: roots and publisher's key.")
    ],
    token_file: Annotated[Path, typer.Option(help="File with an API token of the role publisher.")],
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
) -> None:
    """Sign a release with the publisher's key and upload it.

    The release is signed on top of the server's repository, once that has been verified from the
    authority's root. Publishing the same bundle again changes nothing.

    Example: `skerry model publish fashion_mnist-1.1.0.bundle
    --server https://fleet.example.org:8443 --authority authority --token-file publisher.token`
    """
    from model_pipeline.publish import Outcome  # noqa: PLC0415 (inspect needs no network)

    found = bundles.read(bundle)
    manifest = found.manifest
    publisher = _publisher(server, authority, token_file)
    uris = key or publisher_key.default_uris(authority, manifest.family)
    secrets = Secrets(passphrase_file=passphrase_file, pin_file=pin_file)
    with _progress() as told:
        outcome = publisher.publish(
            found,
            lambda: publisher_key.load(uris, secrets),
            progress=told,
        )
    said = "Published" if outcome is Outcome.PUBLISHED else "Nothing to do, the server has"
    sys.stdout.write(f"{said} {manifest.family} {manifest.version} at {server}\n")


def yank(  # noqa: PLR0913 (each is an option that a person gives)
    family: Annotated[str, typer.Argument(help="Family of the release.")],
    version: Annotated[str, typer.Argument(help="Version to withdraw.")],
    *,
    reason: Annotated[
        str, typer.Option(help="Why, for the operators of devices that run it (300 characters).")
    ],
    server: Annotated[str, typer.Option(help="The server, such as https://fleet.example.org:8443")],
    authority: Annotated[
        Path, typer.Option(help="What `skerry provision init` made: roots and publisher's key.")
    ],
    token_file: Annotated[Path, typer.Option(help="File with an API token of the role publisher.")],
    raise_counter: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**31 - 1,
            help="Devices refuse every release of the family with a lower security counter from "
            "now on. It can never be lowered.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    key: Keys = None,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
) -> None:
    """Withdraw a release: no device installs it any more, and it never comes back.

    Devices that run it go on serving it and report that it is withdrawn. Says what will happen and
    asks before anything is signed.

    Example: `skerry model yank fashion_mnist 1.1.0 --reason "wrong labels"
    --server https://fleet.example.org:8443 --authority authority --token-file publisher.token`
    """
    uris = key or publisher_key.default_uris(authority, family)
    secrets = Secrets(passphrase_file=passphrase_file, pin_file=pin_file)
    from model_pipeline.withdrawal import Order  # noqa: PLC0415 (loaded with its command)

    done = _publisher(server, authority, token_file).yank(
        Order(family=family, version=version, reason=reason, floor=raise_counter),
        confirm=lambda plan: _confirmed(plan, yes=yes),
        signers=lambda: publisher_key.load(uris, secrets),
    )
    if json:
        document = {
            "family": family,
            "version": version,
            "changed": done.changes,
            "reason": done.after.yanked[version],
            "security_floor": done.after.security_floor,
        }
        sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")
        return
    said = "Withdrew" if done.changes else "Nothing to do, withdrawn already:"
    sys.stdout.write(
        f"{said} {family} {version} at {server}; security floor {done.after.security_floor}\n"
    )


def _confirmed(plan: "Withdrawal", *, yes: bool) -> bool:
    sys.stderr.write("".join(f"- {plain(effect)}\n" for effect in plan.effects))
    return yes or typer.confirm(f"Withdraw {plan.order.name}?", err=True)


def _publisher(server: str, authority: Path, token_file: Path) -> "Publisher":
    from model_pipeline import server_link  # noqa: PLC0415 (inspect needs no network)
    from model_pipeline.publish import Publisher  # noqa: PLC0415 (loaded with its command)

    credentials = server_link.Credentials(
        ca_file=authority / "public" / "fleet-ca.crt", token=token_files.read(token_file)
    )
    return Publisher(
        server_link.ServerLink(server, credentials),
        root=_release_root(authority),
        cache=authority / "cache",
        clock=lambda: datetime.now(UTC),
    )


def _release_root(authority: Path) -> bytes:
    path = authority / "public" / "release-root.json"
    try:
        return path.read_bytes()
    except OSError as error:
        raise PipelineError(
            f"cannot read {path}: {error.strerror}; is --authority the directory that "
            "`skerry provision init` made?"
        ) from error


@contextmanager
def _progress() -> Iterator[Told]:
    """Show the upload on a terminal; elsewhere nothing."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("Uploading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        # Started with the first piece, so that it does not paint over a passphrase prompt.
        task = bar.add_task("upload", visible=False)
        yield lambda sent, total: bar.update(task, completed=sent, total=total, visible=True)

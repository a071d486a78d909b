"""`skerry model`: the commands of the people who build and publish models."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from fleet_protocol.plain_text import plain, plain_lines
from model_pipeline import bundle as bundles
from model_pipeline import publisher_key
from model_pipeline.bundle import Bundle
from model_pipeline.errors import PipelineError
from model_pipeline.release_upload import Progress as Told
from signing_keys import passphrases, token_files
from signing_keys.passphrases import Secrets

if TYPE_CHECKING:
    from model_pipeline.publish import Publisher
    from model_pipeline.withdrawal import Withdrawal

_LIMITS = "Limits that devices hold the release to"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Pack a built model as a release, look into it, publish it, withdraw it.",
)

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


@app.command()
def pack(  # noqa: PLR0913 (each is an option that a person gives)
    folder: Annotated[
        Path, typer.Argument(help="Model's folder with card.json, golden.json and the built files.")
    ],
    *,
    version: Annotated[str, typer.Option(help="Version of the release, such as 1.1.0.")],
    variant: Annotated[
        list[str], typer.Option(help="Variant of the card, such as int8. Repeat for more.")
    ],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    security_counter: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**31 - 1,
            help="Raise it when older releases must never come back on any device.",
        ),
    ] = 0,
    description: Annotated[str, typer.Option(help="A sentence for people.")] = "",
    model_file: Annotated[
        Path | None,
        typer.Option(help="Pack this file as the variant, in the place of the card's."),
    ] = None,
    skip_golden_check: Annotated[
        bool,
        typer.Option(
            "--skip-golden-check",
            help="Pack without asking whether the file gives the golden answers. Devices ask "
            "anyway and refuse it if it does not.",
        ),
    ] = False,
    max_error_rate: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of calls that may fail on probation.", rich_help_panel=_LIMITS
        ),
    ] = None,
    max_error_rate_increase: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="By how much that share may exceed the previous release's on the device.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_p95_ms: Annotated[
        float | None,
        typer.Option(
            help="p95 of the golden calls before the switch, in ms.", rich_help_panel=_LIMITS
        ),
    ] = None,
    max_p95_ratio: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="p95 of live calls on probation, as a multiple of the previous release's on the "
            "device.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    shadow_requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Live requests that the release answers, unseen, beside the one that serves.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    shadow_agreement: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of them that must agree: 0.95.", rich_help_panel=_LIMITS
        ),
    ] = None,
    shadow_max_error: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How far outputs without labels may differ and agree: 0.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    shadow_timeout_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which a device that had fewer requests goes on: 3600.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="JSON object: how often each label came up on the evaluation set; drift is "
            "measured against it.",
        ),
    ] = None,
) -> None:
    """Pack variants of a built model into one release.

    Runs the golden vectors on each file with the backend that a device uses, and packs nothing
    that a device would refuse. Limits and reference that are not given are those of `card.json`
    (`acceptance`, `reference`).

    Example: `skerry model pack models/fashion_mnist --version 1.1.0 --variant int8
    --out fashion_mnist-1.1.0.bundle`
    """
    # Needs numpy and the inference library, which publishing does not.
    from model_pipeline.acceptance import Limits, read_reference  # noqa: PLC0415 (loaded with its command)
    from model_pipeline.model_folder import ModelFolder  # noqa: PLC0415 (loaded with its command)
    from model_pipeline.pack import Packing, pack  # noqa: PLC0415 (loaded with its command)

    if skip_golden_check:
        sys.stderr.write(
            "WARNING: the golden check is skipped. Nobody has asked whether this file is the model "
            "that its card describes; every device will ask, and refuse the release if it is not.\n"
        )
    packing = Packing(
        version=version,
        variants=variant,
        security_counter=security_counter,
        description=description,
        model_file=model_file,
        golden_check=not skip_golden_check,
        limits=Limits(
            max_error_rate=max_error_rate,
            max_error_rate_increase=max_error_rate_increase,
            max_p95_latency_ms=max_p95_ms,
            max_p95_ratio=max_p95_ratio,
            shadow_requests=shadow_requests,
            shadow_min_agreement=shadow_agreement,
            shadow_max_abs_error=shadow_max_error,
            shadow_timeout_s=shadow_timeout_s,
        ),
        reference=read_reference(reference) if reference is not None else {},
    )
    packed = pack(ModelFolder(folder), packing, out)
    manifest = packed.manifest
    sys.stdout.write(
        f"Packed {manifest.family} {manifest.version} ({', '.join(variant)}) as {out}, "
        f"{out.stat().st_size} bytes\n"
    )


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle file.")],
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Print the manifest as one JSON document.")
    ] = False,
) -> None:
    """Check a bundle and show what it holds. Nothing is written or sent."""
    found = bundles.read(bundle)
    if json:
        text = msgspec.json.format(msgspec.json.encode(found.manifest), indent=1).decode()
        sys.stdout.write(plain_lines(text) + "\n")
        return
    _print(found)


@app.command()
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


@app.command()
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


def _print(found: Bundle) -> None:
    manifest = found.manifest
    console = Console()
    console.print(
        f"[bold]{_shown(manifest.family)} {_shown(manifest.version)}[/bold]  "
        f"security counter {manifest.security_counter}  {_shown(manifest.description)}"
    )
    tensors = Table("tensor", "datatype", "shape", "labels")
    for kind, specs in (("in", manifest.inputs), ("out", manifest.outputs)):
        for spec in specs:
            tensors.add_row(
                _shown(f"{kind} {spec.name}"),
                spec.datatype,
                str(spec.shape),
                _shown(", ".join(spec.labels)),
            )
    variants = Table(
        "variant", "file", "bytes", "memory", "accuracy", "samples", "golden", "runs on"
    )
    for variant in manifest.variants:
        variants.add_row(
            _shown(variant.name),
            _shown(variant.file),
            str(variant.length),
            str(variant.memory_bytes),
            f"{_shown(variant.accuracy.metric)} {variant.accuracy.value:.2%}",
            str(variant.accuracy.sample_count),
            str(len(variant.golden.vectors)),
            _shown(", ".join(variant.accelerators)),
        )
    console.print(tensors, variants)
    limits = msgspec.json.encode(manifest.acceptance).decode()
    console.print(f"limits beside the defaults: {limits}", highlight=False)


def _shown(text: str) -> str:
    """Return what a bundle's maker wrote for rich: no markup, no control characters."""
    return escape(plain(text))

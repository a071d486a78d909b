"""`skerry model`: packing and looking into bundles; what is signed and sent: `publishing_cli`."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet_protocol.plain_text import plain, plain_lines
from model_pipeline import bundle as bundles
from model_pipeline import publishing_cli
from model_pipeline.bundle import Bundle

_LIMITS = "Limits that devices hold the release to"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Pack a built model as a release, look into it, publish it, withdraw it.",
)


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


app.command()(publishing_cli.publish)
app.command()(publishing_cli.yank)


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

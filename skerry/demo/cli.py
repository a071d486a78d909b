"""`skerry demo`: its options and its exit code."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from skerry.demo import layout, processes
from skerry.demo.layout import DemoDir, Ports
from skerry.demo.narrator import Narrator

app = typer.Typer(invoke_without_command=True)


@app.callback()
def demo(
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Run unattended, print one JSON line with the measurements, exit 0 only if every "
            "claim held.",
        ),
    ] = False,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Stop what an earlier demo left and remove its directory."),
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Directory of all state.  [default: ~/.skerry-demo]"),
    ] = None,
    base_port: Annotated[
        int | None,
        typer.Option(
            min=1024,
            max=65000,
            help="First of five consecutive ports.  [default: 8440; with --check any free ones]",
        ),
    ] = None,
) -> None:
    """Show the whole path on this machine: a server, three devices, real images.

    Signed releases go from a publisher to three devices, a wrong one is refused by the first
    device, the server is killed while images go on being answered, and no telemetry is lost. Then
    everything stays up for you to look at, until Ctrl-C. Needs no root and no network.
    """
    # A demo that is asked to end, or whose terminal closes, leaves nothing behind, as on Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    root = (directory or layout.default_root()).absolute()
    place = DemoDir(root)
    if clean and not root.exists():
        return
    lock = place.claim_for_this_process()
    _clear(place)
    if clean:
        place.remove()
        return
    ports = _ports(base_port, check=check)
    ports.check_free()
    # These need numpy; --clean does not.
    from skerry.demo import images, stay_up  # noqa: PLC0415 (loaded with its command)
    from skerry.demo.story import Story  # noqa: PLC0415 (loaded with its command)
    from skerry.demo.world import World  # noqa: PLC0415 (loaded with its command)

    console = Console(stderr=True, highlight=False)
    model = layout.reference_model()
    world = World(directory=place, ports=ports, model=model, images=images.load(model))
    narrator = Narrator(console)
    try:
        verdict = Story(world=world, narrator=narrator).tell()
        if check:
            sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
        else:
            stay_up.until_interrupted(world, verdict, console)
    finally:
        with narrator.working("stopping"):
            world.stop()
        lock.release()
    if not verdict.ok:
        console.print(f"[red]Claims that did not hold:[/] {', '.join(verdict.broken())}")
        raise typer.Exit(1)


def _ports(base_port: int | None, *, check: bool) -> Ports:
    if check and base_port is None:
        return Ports.free()
    return Ports.from_base(base_port or layout.DEFAULT_BASE_PORT)


def _clear(place: DemoDir) -> None:
    stopped = processes.stop_leftovers(place.root)
    place.empty()
    if stopped:
        Console(stderr=True).print(f"Stopped {stopped} processes of an earlier demo.")

"""The one command. It loads a part only when its commands are asked for.

A device has neither the server's libraries nor the memory for them, and a server no inference
runtime: `skerry agent --help` imports the agent's command module and nothing of the others.
"""

import importlib
import signal
import sys
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Annotated, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from fleet_protocol.errors import SkerryError
from fleet_protocol.plain_text import plain_lines

_HELP = """INT8 models on edge devices, and the fleet that they form.

The order in which a fleet comes to life, each line on the machine that is named:

1. `skerry provision init --out authority --family fashion_mnist --server-name fleet.example.org`
   (offline machine) makes the roots of trust; authority/server moves to the server.

2. `skerry server run --data server` (server) starts API, broker, ingest and signer;
   `skerry server token --data server --name ml --role publisher` makes an API token.

3. `skerry model pack models/fashion_mnist --version 1.0.0 --variant int8 --out fm.bundle` and
   `skerry model publish fm.bundle --server https://fleet.example.org:8443 --authority authority
   --token-file token` (publisher) checks, signs and uploads a release.

4. `skerry provision claim --authority authority --device cam-01 --out cam-01.json` (offline
   machine), then `skerry agent enroll --server https://fleet.example.org:8443 --claim cam-01.json`
   and `skerry agent run` (device).

5. `skerry fleet assign fashion_mnist 1.0.0 --all --server https://fleet.example.org:8443
   --ca authority/public/fleet-ca.crt --token-file token` (operator)
   lets the devices run the release.

`skerry demo` does all of this on one machine.
"""

_INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True, slots=True)
class Part:
    """A group of commands and what it takes to run them."""

    name: str
    module: str
    extras: str
    help: str


PARTS = (
    Part("provision", "provisioning.cli", "", "Roots of trust and claims, offline."),
    Part("server", "fleet_server.cli", "server", "Run and look after the fleet server."),
    Part("model", "model_pipeline.cli", "onnx", "Pack, inspect and publish releases."),
    Part("agent", "edge_agent.cli", "onnx", "Enrol this device and run its agent."),
    Part("fleet", "fleet_server.operator_cli", "server", "Devices, releases, assignments."),
    Part("demo", "skerry.demo.cli", "onnx,server", "The whole path on this machine."),
)


class MissingPartError(SkerryError):
    """A part cannot be loaded because something is not installed."""


class LazyPart(TyperGroup):
    """Stands for a part in the list of commands and steps aside when it is called."""

    def __init__(self, part: Part) -> None:
        super().__init__(name=part.name, help=part.help)
        self._part = part

    def make_context(  # type: ignore[override]  # typer hides the type of click's own context
        self, info_name: str | None, args: list[str], parent: typer.Context, **extra: object
    ) -> typer.Context:
        """Parse the part's arguments with the part's own command.

        Raises:
            MissingPartError: it is not installed, or one of its libraries is not.
        """
        command = load(self._part)
        return cast("typer.Context", command.make_context(info_name, args, parent=parent, **extra))


def load(part: Part) -> TyperGroup:
    """Import a part and return its command.

    Raises:
        MissingPartError: it is not installed, or one of its libraries is not.
    """
    try:
        module = importlib.import_module(part.module)
    except ModuleNotFoundError as error:
        raise missing(error, part) from error
    return get_group(module.app)


def missing(error: ModuleNotFoundError, part: Part) -> SkerryError:
    """Return what to tell a person whose installation lacks a module.

    Raises:
        ModuleNotFoundError: the given one, where one of our own modules imports what is not there.
    """
    package = (error.name or "").partition(".")[0]
    if error.name == part.module or part.module.startswith(f"{error.name}."):
        return MissingPartError(f"this installation has no `skerry {part.name}`")
    if package in {known.module.partition(".")[0] for known in PARTS} | {"fleet_protocol"}:
        raise error
    requirement = f"skerry[{part.extras}]" if part.extras else "skerry"
    return MissingPartError(
        f"`skerry {part.name}` needs {package}, which is not installed: pip install '{requirement}'"
    )


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer hands it over by position)
    if wanted:
        sys.stdout.write(f"skerry {installed_version('skerry')}\n")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Take the options that come before the part."""


def command() -> TyperGroup:
    """Return the command with all parts, none of them loaded."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=_HELP)
    app.callback()(_root)
    root = cast("TyperGroup", get_command(app))
    for part in PARTS:
        root.add_command(LazyPart(part))
    return root


def main() -> None:
    """Run the command line; an expected error is one line on standard error and status 1."""
    try:
        command()(prog_name="skerry")
    except SystemExit as ended:
        # typer ends with 1 when someone breaks off at a prompt, and with 130 elsewhere.
        if isinstance(ended.__context__, typer.Abort):
            sys.exit(_INTERRUPTED)
        raise
    except SkerryError as error:
        sys.exit(_refused(error))
    except ModuleNotFoundError as error:
        called = next((part for part in PARTS if part.name in sys.argv[1:2]), None)
        if called is None:
            raise
        sys.exit(_refused(missing(error, called)))


def _refused(error: SkerryError) -> int:
    sys.stderr.write(plain_lines(f"error: {error}") + "\n")  # a server or a file may have said it
    return 1


if __name__ == "__main__":
    main()

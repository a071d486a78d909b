"""`skerry agent`: enrol this device, run its agent, look at it, stop it."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import enroll as enrolment
from edge_agent import identity, pid_file, settings, status, status_output, stopping
from edge_agent.errors import AgentError
from edge_agent.identity_files import IdentityError
from edge_agent.operator_output import print_json
from edge_agent.pid_file import PidFileError
from edge_agent.state_dir import StateDir
from fleet_protocol.plain_text import plain

DEFAULT_STATE = Path("/var/lib/skerry")
_RUNTIME_LIBRARIES = ("httptools", "numpy", "uvloop")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Enrol this device in its fleet and run the agent that serves models on it.",
)

State = Annotated[
    Path,
    typer.Option(
        envvar="SKERRY_STATE",
        help="State directory of the device: identity, models, telemetry, sockets.",
    ),
]


@app.command()
def enroll(
    server: Annotated[
        str, typer.Option(help="Address of the fleet server, such as https://fleet.example:8443.")
    ],
    claim: Annotated[
        Path, typer.Option(help="Claim file of this device, from `skerry provision claim`.")
    ],
    state: State = DEFAULT_STATE,
) -> None:
    """Make this device a member of a fleet.

    The device makes its own key, which never leaves it, and gets a certificate for it in exchange
    for the claim's one-time token. The server is trusted only if it shows a certificate of the
    claim's fleet. Enrolment that was cut short is finished by running the same command again.

    Example: `skerry agent enroll --server https://fleet.example:8443 --claim camera-7.claim
    --state /var/lib/skerry`
    """
    done = enrolment.enroll(
        state=_state(state),
        server_url=server,
        claim=enrolment.read_claim(claim),
        post=enrolment.https_post,
    )
    typer.echo(plain(f"{done.device_id} is enrolled at {done.server_url}."))
    typer.echo(f"Start its agent: skerry agent run --state {state}")


@app.command()
def run(state: State = DEFAULT_STATE) -> None:
    """Run the agent in the foreground until SIGTERM or Ctrl-C.

    It supervises two processes. The *runtime* answers inference calls (V2 protocol) on
    `STATE/run/runtime.sock` and on loopback TCP, from the committed models alone. *Control* keeps
    the models as assigned and sends telemetry. Either is started again if it dies, and if this
    process is killed they go on without it; `run` then takes them over.

    A device that has committed models starts even if its identity is damaged: they are served, and
    a warning says why it cannot reach its fleet.

    Settings: `STATE/agent.toml`, or the environment, such as `SKERRY_AGENT_RUNTIME__PORT=8500`.

    Example: `skerry agent run --state /var/lib/skerry`
    """
    where = _state(state)
    hang_s = settings.load(where.root, os.environ).supervisor.hang_s
    _check_identity(where)
    missing = [name for name in _RUNTIME_LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise AgentError(
            f"the runtime process needs {', '.join(missing)}: pip install 'skerry[onnx]' for ONNX "
            "models, 'skerry[litert]' for TFLite models"
        )
    where.create()
    holder = pid_file.holder(where.pid_file("supervisor"))
    if holder is not None:
        raise PidFileError(
            f"an agent (pid {holder}) already runs on {where.root}; `skerry agent stop` ends it"
        )
    sys.stdout.flush()
    supervise = [sys.executable, "-m", "edge_agent.supervisor", "--state", str(where.root)]
    os.execv(sys.executable, [*supervise, "--hang-s", str(hang_s)])  # noqa: S606 (a module of ours; the memory is why)


@app.command("status")
def show_status(
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,  # noqa: FBT002 (an option)
) -> None:
    """Show what this device serves, where its updates stand and what waits to be sent.

    It needs no network and changes nothing. Exit status 0 says that it could be read, not that the
    agent runs; `--json` has the pids.

    Example: `skerry agent status --json`
    """
    where = _state(state)
    if not where.root.is_dir():
        raise AgentError(f"there is no state directory {where.root}; enrol this device first")
    found = status.read(where)
    if as_json:
        print_json(found)
    else:
        status_output.show(found)


@app.command()
def stop(
    state: State = DEFAULT_STATE,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for the end.")] = 30.0,
) -> None:
    """Stop the agent: supervisor, control and runtime. Calls in progress are answered first.

    Example: `skerry agent stop --state /var/lib/skerry`
    """
    stopped = stopping.stop(_state(state), timeout_s=timeout)
    typer.echo(f"Stopped: {', '.join(stopped)}." if stopped else f"No agent runs on {state}.")


@app.command()
def devices(
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,  # noqa: FBT002 (an option)
) -> None:
    """Show which accelerators are here, what can use them, and why not for the rest.

    Libraries and drivers are tried in processes of their own, so one that crashes is a line of the
    answer. The device need not be enrolled.

    Example: `skerry agent devices --json`
    """
    from edge_agent import hardware_commands  # noqa: PLC0415 (only these two commands need it)

    hardware_commands.show_devices(_state(state), as_json=as_json)


@app.command()
def bench(  # noqa: PLR0913, PLR0917 (its options)
    model: Annotated[
        str,
        typer.Argument(
            help="A bundle, a model's folder, or a family that this device has committed to."
        ),
    ],
    state: State = DEFAULT_STATE,
    seconds: Annotated[
        float, typer.Option(min=0.5, max=3600, help="How long to measure, loading not counted.")
    ] = 10.0,
    threads: Annotated[
        int, typer.Option(min=1, max=256, help="Threads of one call on the CPU.")
    ] = 1,
    png: Annotated[
        Path | None, typer.Option(help="Also draw a picture (needs `skerry[bench]`).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,  # noqa: FBT002 (an option)
) -> None:
    """Measure every variant of a model on every accelerator of this machine, in turns.

    Shown are the time of a call (median and tails), calls per second, and how fast each is beside
    FP32 on the CPU. Each contender runs in a process of its own; a running agent is not touched,
    but what it does meanwhile slows the measurement down.

    Example: `skerry agent bench models/fashion_mnist --png fashion_mnist.png`
    """
    from edge_agent import hardware_commands  # noqa: PLC0415 (only these two commands need it)

    hardware_commands.run_bench(
        _state(state),
        hardware_commands.BenchOptions(
            model=model, seconds=seconds, threads=threads, as_json=as_json, png=png
        ),
    )


def _check_identity(where: StateDir) -> None:
    """Refuse to start without an identity, unless there is a model to serve."""
    try:
        identity.load(where).private_key()
    except IdentityError as error:
        if not where.active_set.is_file():
            raise
        typer.echo(
            f"warning: {plain(str(error))}. The committed models are served, but the device cannot "
            "reach its fleet: no updates, no telemetry until that is repaired",
            err=True,
        )


def _state(path: Path) -> StateDir:
    return StateDir(path.absolute())

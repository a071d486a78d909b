"""The commands of `skerry agent` that look at the hardware: ``devices`` and ``bench``."""

import logging
import os
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from edge_agent import devices as accelerator_survey
from edge_agent import settings
from edge_agent.bench import measuring, picture, subject
from edge_agent.bench.measuring import Row
from edge_agent.devices import Devices
from edge_agent.errors import AgentError
from edge_agent.operator_output import print_json, shown
from edge_agent.state_dir import StateDir
from fleet_protocol.counting import counted
from fleet_protocol.log_format import JsonFormatter


def show_devices(state: StateDir, *, as_json: bool) -> None:
    """Print what is here and what each backend can do with it.

    Raises:
        AgentError: the settings are malformed.
    """
    _log_on_standard_error()
    found = accelerator_survey.survey(state, dict(os.environ))
    if as_json:
        print_json(found)
    else:
        _print_devices(found)


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `skerry agent bench` was asked for."""

    model: str
    seconds: float
    threads: int
    as_json: bool
    png: Path | None


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `skerry agent bench`."""

    model: str
    cpu: str
    threads: int
    rows: list[Row]


def run_bench(state: StateDir, options: BenchOptions) -> None:
    """Measure and print.

    Raises:
        AgentError: there is nothing to measure, or the picture cannot be drawn.
    """
    _log_on_standard_error()
    if options.png is not None:
        picture.check(options.png)
    library = settings.load(state.root, os.environ).runtime.edgetpu_library
    found = accelerator_survey.survey(state, dict(os.environ))
    with subject.opened(options.model, state) as model:
        rows = measuring.measured(
            model,
            found.placements,
            seconds=options.seconds,
            threads=options.threads,
            edgetpu_library=library,
        )
        name = model.name
    if not any(not row.problem for row in rows):
        reasons = "; ".join(sorted({f"{row.accelerator}: {row.problem}" for row in rows}))
        raise AgentError(
            f"nothing of {name} can run here: {reasons or 'no backend fits its files'}"
        )
    cpu = found.hardware.cpu or found.hardware.machine
    if options.as_json:
        report = BenchReport(model=name, cpu=cpu, threads=options.threads, rows=rows)
        print_json(report)
    else:
        print_rows(f"{name} on {cpu}, {counted(options.threads, 'thread')} a call", rows)
    if options.png is not None:
        picture.draw(f"{name} on {cpu}", rows, options.png)


def _log_on_standard_error() -> None:
    """Let warnings be read with their reasons, such as why a backend is not loaded."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _print_devices(found: Devices) -> None:
    console = Console()
    here = found.hardware
    features = ", ".join(here.cpu_features) or "nothing that inference libraries look for"
    console.print(
        f"[bold]{shown(here.cpu or here.machine)}[/bold], {here.cpu_count} cores: {features}"
    )
    for device in here.devices:
        problem = f" [red]{shown(device.problem)}[/red]" if device.problem else ""
        console.print(f"[bold]{shown(device.name)}[/bold] at {shown(device.where)}{problem}")
    if not here.devices:
        console.print(
            "No accelerator beside the CPU was found (Edge TPU, NVIDIA, Intel GPU or NPU)."
        )
    table = Table("backend", "accelerator", "files", "usable")
    for place in found.placements:
        usable = f"[red]no[/red]: {shown(place.problem)}" if place.problem else "yes"
        name = f"{place.backend} {place.version}".strip()
        table.add_row(shown(name), shown(place.accelerator), place.format.value, usable)
    console.print(table)


def print_rows(title: str, rows: list[Row]) -> None:
    """Print what was measured, as a table."""
    console = Console()
    figures = ("p50 ms", "p95 ms", "p99 ms", "calls/s", "speed", "MiB")
    table = Table(title=shown(title))
    for name in ("variant", "accelerator"):
        table.add_column(name, overflow="fold")  # cut short, two variants would look alike
    for figure in figures:
        table.add_column(figure, no_wrap=True)
    for row in rows:
        if row.problem:
            table.add_row(shown(row.variant), shown(row.accelerator), *[""] * 6)
            continue
        table.add_row(
            shown(row.variant),
            shown(row.accelerator) + ("" if row.released else " *"),
            *(f"{value:.3f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms)),
            f"{row.calls_per_s:,.1f}",
            f"x {row.speed_up:.2f}" if row.speed_up is not None else "",
            f"{row.resident_mib:.0f}",
        )
    console.print(table)
    if not all(row.released or row.problem for row in rows):
        console.print("* shown to compare: the publisher does not release the variant for it.")
    for row in rows:
        if row.problem:
            console.print(
                f"[red]{shown(row.variant)} on {shown(row.accelerator)} ({row.backend}) was not "
                f"measured:[/red] {shown(row.problem)}"
            )

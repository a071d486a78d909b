"""Prints what `skerry agent status` found, for a person."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from edge_agent.operator_output import shown
from edge_agent.remote_settings import MAX_STARTS
from edge_agent.status import (
    AgentStatus,
    ConfigurationShown,
    FamilyStatus,
    certificate_has_expired,
)


def show(found: AgentStatus) -> None:
    """Print it."""
    console = Console()
    for line in (*_device(found), *_configuration(found), *_alarms(found)):
        console.print(line)
    if found.families:
        console.print(_table(found.families))
    for line in (*_placements(found.families), *_failures(found)):
        console.print(line)


def _device(found: AgentStatus) -> Iterator[str]:
    if found.device_id is None:
        yield "Not enrolled: skerry agent enroll --help"
    else:
        yield f"[bold]{shown(found.device_id)}[/bold] at {shown(found.server_url)}"
        if certificate_has_expired(found, datetime.now(UTC)):
            yield f"[red]Its certificate expired at {found.certificate_expires}.[/red]"
    living = [f"{name} {pid or '[red]down[/red]'}" for name, pid in found.processes.items()]
    yield f"Processes: {', '.join(living)}"
    yield f"Assignment: {found.assignment_version or 'none yet'}"
    waiting = [f"{count} {shown(kind)}" for kind, count in found.outbox.items()]
    yield f"Waiting for acknowledgement: {', '.join(waiting) or 'nothing'}"


def _configuration(found: AgentStatus) -> Iterator[str]:
    configuration = found.configuration
    yield f"Configuration: {_from(configuration.working)}"
    if configuration.trial is not None:
        yield (
            f"[yellow]On trial: {_from(configuration.trial)}; control has started "
            f"{configuration.trial_starts} of {MAX_STARTS} times with it[/yellow]"
        )
    if configuration.refused_version:
        problem = shown(configuration.problem)
        yield f"[red]Version {configuration.refused_version} was not kept: {problem}[/red]"


def _from(configuration: ConfigurationShown) -> str:
    if not configuration.command_id:
        return "the device's own, nothing is set by the fleet"
    name = shown(configuration.name) or "the device's own, everything of the fleet taken back:"
    return (
        f"{name} version {configuration.version}, commanded by the fleet at {configuration.issued} "
        f"(command {shown(configuration.command_id)})"
    )


def _alarms(found: AgentStatus) -> Iterator[str]:
    for alarm in found.alarms:
        yield (
            f"[red]The {shown(alarm)} has expired and nothing newer came: somebody may be keeping "
            "news back, or the fleet cannot be reached.[/red]"
        )


def _table(families: list[FamilyStatus]) -> Table:
    table = Table("family", "serving", "committed", "assigned", "update", "detail")
    for family in families:
        update = f"{family.update} {family.update_version}" if family.update else "-"
        table.add_row(
            shown(family.family),
            shown(family.serving) if family.serving else "[red]nothing[/red]",
            shown(family.committed or "-"),
            shown(family.assigned or "-"),
            shown(update),
            shown(family.detail),
        )
    return table


def _placements(families: list[FamilyStatus]) -> Iterator[str]:
    for family in families:
        if family.variant is not None:
            why = f": {family.choice}" if family.choice else ""
            runs = "runs" if family.serving else "will run"
            yield shown(f"{family.family} {runs} as {family.variant} on {family.accelerator}{why}")


def _failures(found: AgentStatus) -> Iterator[str]:
    for name, reason in (found.runtime.failed if found.runtime is not None else {}).items():
        yield f"[red]{shown(name)} cannot be served: {shown(reason)}[/red]"

"""The rows that a benchmark gives, as a table for people and as JSON for the repository."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure.

    Attributes:
        goal: what an issue asks for, with its comparison, such as ``<= 90``; empty without one.
        met: None where there is no goal.
        how: the command that reproduces it, and what was compared.
    """

    name: str
    value: float
    unit: str
    goal: str
    met: bool | None
    how: str


def at_most(name: str, value: float, unit: str, goal: float, how: str) -> Row:
    """Return the row of a figure that has an upper limit."""
    return Row(name=name, value=value, unit=unit, goal=f"<= {goal:g}", met=value <= goal, how=how)


def at_least(name: str, value: float, unit: str, goal: float, how: str) -> Row:
    """Return the row of a figure that has a lower limit."""
    return Row(name=name, value=value, unit=unit, goal=f">= {goal:g}", met=value >= goal, how=how)


def figure(name: str, value: float, unit: str, how: str) -> Row:
    """Return the row of a figure without a goal."""
    return Row(name=name, value=value, unit=unit, goal="", met=None, how=how)


def publish(benchmark: str, rows: list[Row]) -> Path:
    """Print the table and write ``results/<benchmark>.json``."""
    show(benchmark, rows)
    return save(benchmark, rows)


def show(benchmark: str, rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title=benchmark, title_justify="left")
    for heading in ("figure", "value", "unit", "goal", "met"):
        table.add_column(heading)
    for row in rows:
        met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[row.met]
        table.add_row(row.name, f"{row.value:g}", row.unit, row.goal, met)
    Console().print(table)


def save(benchmark: str, rows: list[Row]) -> Path:
    """Write ``results/<benchmark>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{benchmark}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    return path

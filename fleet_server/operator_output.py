"""How the commands of `skerry fleet` print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

_FILE_WIDTH = 500
"""Columns where nobody looks at a terminal: programs read whole lines."""


def print_json(content: object) -> None:
    """Print what the API answered."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    empty: str,
    numbers: Collection[str] = (),
) -> None:
    """Print a table.

    Args:
        titles: of the columns.
        rows: a cell for each column; what a device or a person wrote is no markup.
        empty: the sentence to print if there are no rows.
        numbers: titles of the columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    if table.row_count:
        Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)
    else:
        sys.stdout.write(empty + "\n")


def time_text(unix_ms: int | None) -> str:
    """Return a moment as people read it, in UTC."""
    if unix_ms is None:
        return "never"
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")

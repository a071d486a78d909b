"""How the commands of `skerry fleet` about devices' agents print what they got."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_FILE_WIDTH = 500
"""Columns where nobody looks at a terminal: programs read whole lines."""


def print_json(content: object) -> None:
    """Print JSON for programs."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def time_text(unix_ms: int) -> str:
    """Return a moment for a person."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print a table, or a sentence if there is nothing in it."""
    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    if table.row_count:
        Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)
    else:
        sys.stdout.write(empty + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that all have the same names."""
    titles = list(rows[0]) if rows else []
    print_table(titles, [[_text(row.get(name)) for name in titles] for row in rows], empty="")


def fields(content: Mapping[str, Any]) -> None:
    """Print names and values, a line each."""
    for name, value in content.items():
        if name != "kind" and value not in (None, "", [], {}):
            sys.stdout.write(f"  {name}: {_text(value)}\n")


def _text(value: object) -> str:
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)

"""How the commands of `skerry fleet` print: tables and sentences for people, JSON for programs.

The one place in which they write to a terminal: what a device or a server says goes there with its
control characters shown, not obeyed. It also writes the files that commands are asked for.
"""

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from fleet_protocol.plain_text import plain, plain_lines
from fleet_server.errors import FleetError

_COLOURS = {
    "updated": "green",
    "failed": "red",
    "updating": "yellow",
    "waiting": "yellow",
    "ok": "green",
    "warning": "yellow",
    "critical": "red",
    "expired": "red",
}

_FILE_WIDTH = 500
"""Columns where nobody looks at a terminal: programs read whole lines."""


def say(*sentences: str) -> None:
    """Print sentences, a line each."""
    for sentence in sentences:
        sys.stdout.write(plain(sentence) + "\n")
    sys.stdout.flush()


def warn(sentence: str) -> None:
    """Print a sentence on standard error."""
    sys.stderr.write(plain(sentence) + "\n")


def print_lines(text: str) -> None:
    """Print a text of many lines."""
    sys.stdout.write(plain_lines(text))


def print_json(content: object, *, indent: int | None = 1) -> None:
    """Print what the API answered."""
    sys.stdout.write(plain_lines(json.dumps(content, indent=indent)) + "\n")
    sys.stdout.flush()


def tell(answer: object, sentence: str, *, as_json: bool) -> None:
    """Print what came of a change: what the API answered, or a sentence."""
    if as_json:
        print_json(answer)
    else:
        say(sentence)


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
        table.add_column(Text(plain(title)), justify="right" if title in numbers else "left")
    for row in rows:
        table.add_row(*map(_cell, row))
    if table.row_count:
        Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)
    else:
        say(empty)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that all have the same names."""
    titles = list(rows[0]) if rows else []
    print_table(titles, [[_text(row.get(name)) for name in titles] for row in rows], empty="")


def print_fields(content: Mapping[str, Any]) -> None:
    """Print names and values, a line each."""
    for name, value in content.items():
        if name != "kind" and value not in (None, "", [], {}):
            say(f"  {name}: {_text(value)}")


def waiting() -> AbstractContextManager[Status]:
    """Show on standard error that something is waited for; see `waits_for`."""
    return Console(stderr=True).status("")


def waits_for(shown: Status, what: str) -> None:
    """Say what is waited for."""
    shown.update(Text(plain(what)))


def write_file(path: Path, content: Iterable[bytes]) -> None:
    """Write the file that a command was asked for: the whole of it, or nothing; mode 600.

    Args:
        path: of the file.
        content: piece by piece.

    Raises:
        FleetError: it cannot be written there; what was there before still is.
    """
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():  # a pipe or a device has no other name
            with path.open("wb") as pipe:
                pipe.writelines(content)
            return
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.writelines(content)
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FleetError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def coloured(word: str) -> Text:
    """Return a word of a table in the colour of what it means."""
    return Text(word, _COLOURS.get(word, ""))


def time_text(unix_ms: int | None) -> str:
    """Return a moment as people read it, in UTC."""
    if unix_ms is None:
        return "never"
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _cell(cell: str | Text) -> Text:
    return Text(plain(cell)) if isinstance(cell, str) else Text(plain(cell.plain), cell.style)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)

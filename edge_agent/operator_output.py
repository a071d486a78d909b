"""How `skerry agent` prints: what others say goes to a terminal shown, not obeyed."""

import msgspec
import typer
from rich.markup import escape

from fleet_protocol.plain_text import plain, plain_lines


def print_json(content: msgspec.Struct) -> None:
    """Print JSON for programs."""
    text = msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
    typer.echo(plain_lines(text))


def shown(text: object) -> str:
    """Return a text for rich: without markup of its own, its control characters visible."""
    return escape(plain(str(text)))

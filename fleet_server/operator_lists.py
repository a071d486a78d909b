"""The lists of `skerry fleet`: reads their pages and prints them, as JSON or as a table.

What has no end to speak of, such as the audit trail, is shown by its newest items, with a word
about how many there are before them; all other lists are read to their ends.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from fleet_server.operator_client import OperatorClient
from fleet_server.operator_output import print_json, print_table, waiting, waits_for, warn

Item = dict[str, Any]
"""One item of a list, as the API shows it."""

Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the newest.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them, whatever --limit says.")]

_TOLD_EVERY = 500


def print_list(  # noqa: PLR0913 (what a table is)
    items: Iterable[Item],
    *,
    key: str,
    columns: Sequence[str],
    row: Callable[[Item], Sequence[str | Text]],
    empty: str,
    as_json: bool,
    numbers: Collection[str] = (),
) -> None:
    """Print a list; on a terminal, say how far its reading is while that lasts.

    Args:
        items: as they come, page by page.
        key: what the API calls them; in JSON the list is under this name.
        columns: titles of the table.
        row: the cells of an item, one for each column.
        empty: the sentence to print in the place of an empty table.
        as_json: print the items as the API shows them, and no table.
        numbers: titles of the columns that are aligned to the right.

    Raises:
        ApiError: no answer, or a refusal.
    """
    found = _read(items, key)
    if as_json:
        print_json({key: found})
    else:
        print_table(columns, map(row, found), empty=empty, numbers=numbers)


def newest(  # noqa: PLR0913 (what a list is, and how much of it)
    client: OperatorClient,
    path: str,
    key: str,
    fields: Mapping[str, object],
    *,
    limit: int | None,
    counted_at: str,
) -> Iterable[Item]:
    """Return the newest items of a list, the newest last; say on standard error what is left out.

    Args:
        client: asks the server.
        path: of a list that can be read from its end.
        key: what the API calls the items.
        fields: of the query; those that are None are left out.
        limit: items at most; None for all.
        counted_at: path of the route that counts what the query finds.

    Raises:
        ApiError: no answer, or a refusal.
    """
    if limit is None:
        return client.pages(path, key, fields)
    found = _read(client.pages(path, key, {**fields, "order": "desc"}, most=limit), key)
    if len(found) == limit:
        count = client.get(counted_at, fields)
        older = count[key] - limit
        if older > 0:
            few = "at least " if count["is_capped"] else ""
            warn(f"{few}{older:,} older {key} are not shown: --limit N shows more, --all all")
        elif count["is_capped"]:
            warn(f"older {key} may not be shown: --all shows all")
    return found[::-1]


def _read(items: Iterable[Item], key: str) -> list[Item]:
    found: list[Item] = []
    with waiting() as shown:
        for item in items:
            found.append(item)
            if len(found) % _TOLD_EVERY == 0:
                waits_for(shown, f"{len(found):,} {key} read")
    return found

"""`skerry fleet audit`: the tenant's audit trail, over the server's API; for administrators."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fleet_protocol.counting import counted
from fleet_server.audit.chain import Entry, Verification
from fleet_server.duration import duration
from fleet_server.errors import ConflictError
from fleet_server.operator_client import ApiError
from fleet_server.operator_lists import Everything, Limit, newest, print_list
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_json, say, time_text, write_file

app = typer.Typer(no_args_is_help=True, help="Who changed what, and when.")

_ROOT = "/api/v1/audit"
_MAX_LINE = 64 * 1024 * 1024
_SHOWN = 100


@app.command("list")
def list_entries(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    actor: Annotated[str | None, typer.Option(help="Only by them, such as `session ann`.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as `user.create`.")] = None,
    since: Annotated[str | None, typer.Option(help="Only the last 12h, 30d, ...")] = None,
    limit: Limit = 100,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """List changes, the newest last; --json has what was there before and after.

    Of more than --limit, the newest are listed; standard error says how many are older.

    Example: `skerry fleet audit list --since 1d --server URL --token-file token`
    """
    since_ms = None
    if since is not None:
        since_ms = int((datetime.now(UTC) - duration(since, option="--since")).timestamp() * 1000)
    fields = {"actor": actor, "action": action, "since_ms": since_ms}
    client = connected(server, token_file, ca)
    print_list(
        newest(
            client,
            _ROOT,
            "entries",
            fields,
            limit=None if everything else limit,
            counted_at="/api/v1/audit-count",
        ),
        key="entries",
        columns=("number", "when", "who", "what", "of", "then"),
        row=lambda item: (
            str(item["number"]),
            time_text(item["at_ms"]),
            item["actor"],
            item["action"],
            item["subject"],
            (item["after"] or "")[:_SHOWN],
        ),
        empty="There is no such entry.",
        numbers={"number"},
        as_json=as_json,
    )


@app.command()
def export(
    *,
    out: Annotated[Path, typer.Option(help="File for the JSON lines; one of its name goes.")],
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the whole trail as JSON lines, and check its chain of hashes.

    Note the head that it prints elsewhere: `skerry server audit verify --expect` and the next
    export show that nothing before it was changed.

    Example: `skerry fleet audit export --out trail.jsonl --server URL --token-file token`
    """
    checking = _Checking()
    client = connected(server, token_file, ca)
    write_file(out, checking.through(client.stream(f"{_ROOT}/export")))
    if checking.problem is not None:
        raise ConflictError(f"{checking.problem}; {out} holds the trail as the server gave it")
    number, head = checking.verification.number, checking.verification.head
    if as_json:
        print_json({"file": str(out), "entries": number, "head": head})
    else:
        say(f"{out} holds {counted(number, 'entry', 'entries')}; the chain holds, its head: {head}")


class _Checking:
    """Follows the chain of a trail that passes by."""

    def __init__(self) -> None:
        self.verification = Verification()
        self.problem: ConflictError | None = None

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what comes, unchanged.

        Raises:
            ApiError: a line never ends, or the last one has none.
        """
        rest = b""
        for chunk in chunks:
            yield chunk
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MAX_LINE:
                raise ApiError("the server sends no audit trail: a line has no end", status=None)
            for line in lines:
                self._take(line)
        if rest:
            raise ApiError("the server broke off in the middle of an entry", status=None)

    def _take(self, line: bytes) -> None:
        if self.problem is not None:
            return
        try:
            self.verification.take([msgspec.json.decode(line, type=Entry)])
        except msgspec.DecodeError as error:
            self.problem = ConflictError(f"an entry cannot be read: {error}")
        except ConflictError as error:
            self.problem = error

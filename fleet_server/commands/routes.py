"""Routes of commands: operators issue them and read answers, devices fetch and answer them."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from fleet_protocol.command_answers import decode_answer
from fleet_protocol.unreadable import problem
from fleet_server.accounts.authorization import Commander, Reader, bearer_token
from fleet_server.commands.archive import Filters
from fleet_server.commands.schemas import (
    CommandList,
    CommandOrder,
    CommandPage,
    CommandSummary,
    CommandView,
)
from fleet_server.commands.states import CommandState
from fleet_server.errors import MalformedError
from fleet_server.paging import AfterId, Limit, following
from fleet_server.services import Wired

router = APIRouter(prefix="/api/v1", tags=["commands"])
device_router = APIRouter(prefix="/device/v1", tags=["device"])

CommandIdPath = Annotated[str, Path(min_length=1, max_length=40)]
Kind = Literal["diagnostics", "logs", "bench", "restart_runtime", "configure"]


@device_router.get("/commands")
async def fetch_commands(request: Request, services: Wired) -> Response:
    """Return the open commands of the device, each a signed envelope.

    The answer is `fleet_protocol.commands.Mailbox`; MQTT brings the same on its own.
    """
    device_id = await services.devices.authenticate(bearer_token(request))
    mailbox = await services.commands.mailboxes.of(device_id)
    return Response(mailbox, media_type="application/json")


@device_router.post("/answers", status_code=204)
async def take_answer(request: Request, services: Wired) -> Response:
    """Store the device's answer to a command; the same answer again changes nothing.

    The body is a `fleet_protocol.command_answers.Answer`.
    """
    device_id = await services.devices.authenticate(bearer_token(request))
    answer = decode_answer(await request.body())
    await services.commands.archive.take(device_id, answer)
    return Response(status_code=204)


@router.post("/commands", status_code=201)
async def issue_commands(request: Request, services: Wired, account: Commander) -> CommandList:
    """Command some devices: `diagnostics`, `logs`, `bench` or `restart_runtime`.

    The body is a `fleet_server.commands.schemas.CommandOrder`. Settings of the agent are not
    commanded here but desired, with `/api/v1/configurations`.
    """
    try:
        order = msgspec.json.decode(await request.body(), type=CommandOrder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"the order: {problem(error, CommandOrder)}") from error
    rows = await services.commands.issuing.issue(
        devices=order.devices, action=order.action, lifetime_s=order.lifetime_s, who=account.name
    )
    return CommandList(commands=[CommandView.of(row) for row in rows])


@router.get("/commands")
async def list_commands(  # noqa: PLR0913 (each is a filter)
    *,
    services: Wired,
    _account: Reader,
    device: Annotated[str | None, Query(max_length=63)] = None,
    state: CommandState | None = None,
    kind: Kind | None = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> CommandPage:
    """List commands and how they ended, the newest first; each alone also has its result."""
    filters = Filters(device_id=device, state=state, kind=kind)
    rows = await services.commands.archive.page(filters, after=after, limit=limit)
    return CommandPage(
        commands=[CommandSummary.of(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.number),
    )


@router.get("/commands/{command_id}")
async def get_command(command_id: CommandIdPath, services: Wired, _account: Reader) -> CommandView:
    """Show one command and its answer."""
    return CommandView.of(await services.commands.archive.get(command_id))


@router.post("/commands/{command_id}/cancel")
async def cancel_command(
    command_id: CommandIdPath, services: Wired, _account: Commander
) -> CommandView:
    """Take an open command back; a device that has begun already still answers it."""
    return CommandView.of(await services.commands.archive.cancel(command_id))


@router.get("/commands/{command_id}/log", response_class=Response)
async def download_log(command_id: CommandIdPath, services: Wired, _account: Commander) -> Response:
    """Return the log that answers a `logs` command: JSON lines, compressed with gzip."""
    content = await services.commands.archive.log(command_id)
    name = f'attachment; filename="{command_id}.jsonl.gz"'
    return Response(content, media_type="application/gzip", headers={"Content-Disposition": name})

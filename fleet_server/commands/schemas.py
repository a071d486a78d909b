"""What the routes take and show about commands and configurations.

Bodies are msgspec structs of the contract with devices, so that both ends check alike.
"""

from typing import Annotated, Any, Self

import msgspec
from pydantic import BaseModel

from fleet_protocol.commands import MAX_LIFETIME_S, Bench, Diagnostics, Logs, RestartRuntime
from fleet_protocol.names import DeviceId
from fleet_server.commands.states import CommandState
from fleet_server.commands.tables import DeviceCommand
from fleet_server.paging import Cursor

MAX_DEVICES = 200
_DEFAULT_LIFETIME_S = 3600


class CommandOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What some devices shall do.

    Attributes:
        devices: which; all of them or none are commanded.
        action: what; the same for all.
        lifetime_s: a device that has not begun by then does not begin.
    """

    devices: Annotated[list[DeviceId], msgspec.Meta(min_length=1, max_length=MAX_DEVICES)]
    action: Diagnostics | Logs | Bench | RestartRuntime
    lifetime_s: Annotated[int, msgspec.Meta(ge=10, le=MAX_LIFETIME_S)] = _DEFAULT_LIFETIME_S


class CommandSummary(BaseModel):
    """One command without its result; ``begun_ms`` and ``ended_ms`` by the clock of the device."""

    id: str
    device_id: str
    sequence: int
    kind: str
    action: dict[str, Any]
    state: CommandState
    issued_ms: int
    expires_ms: int
    requested_by: str
    begun_ms: int | None
    ended_ms: int | None
    answered_ms: int | None
    detail: str

    @classmethod
    def of(cls, row: DeviceCommand) -> Self:
        """Return what is shown of a stored command."""
        return cls(**cls._shown(row))

    @classmethod
    def _shown(cls, row: DeviceCommand) -> dict[str, Any]:
        return {
            "id": row.id,
            "device_id": row.device_id,
            "sequence": row.sequence,
            "kind": row.kind,
            "action": msgspec.json.decode(row.action),
            "state": CommandState(row.state),
            "issued_ms": row.issued_ms,
            "expires_ms": row.expires_ms,
            "requested_by": row.requested_by,
            "begun_ms": row.begun_ms,
            "ended_ms": row.ended_ms,
            "answered_ms": row.answered_ms,
            "detail": row.detail,
        }


class CommandView(CommandSummary):
    """One command and its result."""

    result: dict[str, Any] | None

    @classmethod
    def _shown(cls, row: DeviceCommand) -> dict[str, Any]:
        result = None if row.result is None else msgspec.json.decode(row.result)
        return super()._shown(row) | {"result": result}


class CommandList(BaseModel):
    """The commands that an order became."""

    commands: list[CommandView]


class CommandPage(BaseModel):
    """Some commands, the newest first."""

    commands: list[CommandSummary]
    next_after: Cursor | None

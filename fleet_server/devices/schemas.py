"""What the operator's routes say about devices."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from fleet_protocol import names
from fleet_server.devices import selector
from fleet_server.devices.health import Health
from fleet_server.devices.update_progress import Progress
from fleet_server.paging import Cursor
from fleet_server.storable import StorableText


class AssignedEntry(BaseModel):
    """One release that the device shall run."""

    family: str
    version: str
    path: str
    length: int
    sha256: str


class AssignmentView(BaseModel):
    """The newest signed assignment of a device."""

    version: int
    signed_ms: int
    expires_ms: int
    releases: list[AssignedEntry]


class FamilyUpdate(BaseModel):
    """Where one family stands; see `fleet_server.devices.update_progress`."""

    family: str
    assigned_version: str
    running_version: str | None
    progress: Progress
    state: str | None
    detail: str


class DeviceView(BaseModel):
    """One device."""

    id: str
    online: bool
    last_seen_ms: int | None
    enrolled_ms: int
    decommissioned_ms: int | None
    public_key_sha256: str
    certificate_serial: str
    certificate_expires_ms: int
    health: Health
    labels: dict[str, str]
    facts: dict[str, list[str]]
    update: Progress
    families: list[FamilyUpdate]
    assignment: AssignmentView | None
    reported: JsonValue
    """The device's last ``Reported`` message, or null."""


class DevicePage(BaseModel):
    """Some devices in the order of their ids."""

    devices: list[DeviceView]
    next_after: Cursor | None
    """Ask for the next page with ``after`` set to this; null on the last page."""


class DeviceCount(BaseModel):
    """How many devices there are of some kind."""

    devices: int
    is_capped: bool
    """There may be more: counting ended here, at 10,000 or after a bounded time."""


class LabelChanges(BaseModel):
    """A JSON merge patch (RFC 7396) of a device's labels: null removes one."""

    model_config = ConfigDict(extra="forbid")

    labels: Annotated[dict[str, str | None], Field(min_length=1, max_length=2 * names.MAX_LABELS)]


class GroupRequest(BaseModel):
    """A saved selector."""

    model_config = ConfigDict(extra="forbid")

    selector: Annotated[str, Field(min_length=1, max_length=selector.MAX_LENGTH)]
    description: Annotated[StorableText, Field(max_length=500)] = ""


class GroupView(BaseModel):
    """A group: its members are whichever devices its selector selects now."""

    name: str
    selector: str
    description: str
    changed_ms: int


class GroupPage(BaseModel):
    """Some groups in the order of their names."""

    groups: list[GroupView]
    next_after: Cursor | None

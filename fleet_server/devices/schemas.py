"""What the operator's routes say about devices."""

from pydantic import BaseModel, JsonValue

from fleet_server.devices.update_progress import Progress


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
    update: Progress
    families: list[FamilyUpdate]
    assignment: AssignmentView | None
    reported: JsonValue
    """The device's last ``Reported`` message, or null."""


class DevicePage(BaseModel):
    """Some devices in the order of their ids."""

    devices: list[DeviceView]
    next_after: str | None
    """Ask for the next page with ``after`` set to this; null on the last page."""

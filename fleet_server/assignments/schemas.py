"""What the routes say about assignments."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fleet_server.storable import StorableText
from fleet_server.text_form import Form

MAX_DEVICES = 10_000

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DeviceId = Annotated[str, Field(max_length=63)]


class WindowBody(BaseModel):
    """A time of maintenance in UTC that comes again."""

    model_config = ConfigDict(extra="forbid")

    weekdays: Annotated[list[Weekday], Field(max_length=7)] = []
    """Days on which it opens; none named means every day."""
    start: Annotated[
        str, Form(r"^([01][0-9]|2[0-3]):[0-5][0-9]$", "use HH:MM in UTC, such as 02:30")
    ]
    """When it opens, such as ``02:30``."""
    duration_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)]


class DeliveryBody(BaseModel):
    """When and how fast a release may come. What is not said is not limited."""

    model_config = ConfigDict(extra="forbid")

    download_not_before: AwareDatetime | None = None
    activate_not_before: AwareDatetime | None = None
    window: WindowBody | None = None
    """The release is tried and switched to only while it is open."""
    download_in_window: bool = False
    """Files, too, come only while the window is open."""
    max_bytes_per_s: Annotated[int, Field(ge=1024, le=2**40)] | None = None


class AssignRequest(BaseModel):
    """Which release which devices shall run; their other families stay as they are."""

    model_config = ConfigDict(extra="forbid")

    family: Annotated[StorableText, Field(max_length=64)]
    version: Annotated[StorableText, Field(max_length=64)]
    devices: (
        Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=MAX_DEVICES)] | None
    )
    """Device ids; null for all devices."""
    delivery: DeliveryBody | None = None


class AssignedDevice(BaseModel):
    """The version of a device's new assignment."""

    device_id: str
    assignment_version: int


class AssignResponse(BaseModel):
    """What was assigned."""

    family: str
    version: str
    assigned: list[AssignedDevice]

"""What the routes say about assignments."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_DEVICES = 10_000

DeviceId = Annotated[str, Field(max_length=63)]


class AssignRequest(BaseModel):
    """Which release which devices shall run; their other families stay as they are."""

    model_config = ConfigDict(extra="forbid")

    family: Annotated[str, Field(max_length=64)]
    version: Annotated[str, Field(max_length=64)]
    devices: (
        Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=MAX_DEVICES)] | None
    )
    """Device ids; null for all devices."""


class AssignedDevice(BaseModel):
    """The version of a device's new assignment."""

    device_id: str
    assignment_version: int


class AssignResponse(BaseModel):
    """What was assigned."""

    family: str
    version: str
    assigned: list[AssignedDevice]

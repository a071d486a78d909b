"""What the routes say about trust."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fleet_server.releases.verification import MAX_METADATA_BYTES
from fleet_server.trust.expiries import Level
from fleet_server.trust.service import MAX_DOCUMENTS

MAX_ADOPT_BYTES = 2 * MAX_METADATA_BYTES
_Document = Annotated[str, Field(max_length=MAX_METADATA_BYTES)]


class AdoptRequest(BaseModel):
    """Signed metadata as text, byte by byte as it was signed, in any order."""

    model_config = ConfigDict(extra="forbid")

    documents: Annotated[list[_Document], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class AdoptResponse(BaseModel):
    """What is new; empty if all of it was current already."""

    adopted: list[str]


class ExpiryView(BaseModel):
    """One thing that runs out."""

    name: str
    kind: str
    key_ids: list[str]
    expires: datetime
    days_left: float
    level: Level
    action: str


class ExpiryList(BaseModel):
    """Everything that runs out, the nearest first."""

    expiries: list[ExpiryView]

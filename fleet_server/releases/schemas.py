"""What the routes say about releases."""

from pydantic import BaseModel, JsonValue

from fleet_server.paging import Cursor


class ReleaseView(BaseModel):
    """One release as the lists show it."""

    family: str
    version: str
    manifest_path: str
    manifest_length: int
    manifest_sha256: str
    security_counter: int
    description: str
    size_bytes: int
    published_ms: int


class ReleasePage(BaseModel):
    """Some releases in the order of family and version."""

    releases: list[ReleaseView]
    next_after: Cursor | None
    """Ask for the next page with ``after`` set to this; null on the last page."""


class ReleaseDetail(ReleaseView):
    """One release with its manifest, less the golden vectors, which are large."""

    manifest: JsonValue


class PublishedView(BaseModel):
    """What an upload published."""

    family: str
    metadata_version: int
    releases: list[str]

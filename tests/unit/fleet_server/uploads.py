"""Uploads of releases as publishers send them, and what they leave."""

from collections.abc import Iterator
from pathlib import Path

from fleet_server.releases.multipart import pieces
from fleet_server.releases.service import Releases
from fleet_server.releases.verification import Upload
from tests.unit.fleet_server.authority import ReleaseFiles
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, chunks, form

Part = tuple[str, str | None, bytes]


def parts(metadata: bytes, *uploaded: ReleaseFiles) -> list[Part]:
    """Return the parts of an upload: metadata, and all files of releases."""
    files = [(path, content) for each in uploaded for path, content in each.by_path.items()]
    return [("metadata", None, metadata), *(("targets", path, content) for path, content in files)]


async def publish(releases: Releases, *uploaded: Part) -> Upload:
    """Upload parts as a client does, in pieces."""
    return await releases.publish(pieces(CONTENT_TYPE, chunks(form(*uploaded))))


def files_below(folder: Path) -> Iterator[str]:
    """Yield path and size of each file, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{path.relative_to(folder)} {path.stat().st_size}"


async def versions(releases: Releases) -> list[str]:
    """Return the versions that the index lists."""
    return [row.version for row in await releases.page(family=None, after=None, limit=100)]

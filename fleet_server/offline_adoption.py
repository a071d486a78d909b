"""Adopts roots of the release repository while no server runs.

Where a thief's snapshot or timestamp keeps the server from starting, the new root alone is put in
place; the start then makes both anew from what the holders of the offline keys signed.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError

from fleet_server import tuf_files
from fleet_server.data_dir import DataDir
from fleet_server.errors import SetupError
from fleet_server.releases import durable_files


def adopt_roots(root: Path, documents: Sequence[bytes]) -> list[str]:
    """Verify release roots against the chain in the data directory and add them.

    Returns:
        Names of the files that were written.

    Raises:
        SetupError: not a data directory, a server runs on it, or the disk refuses.
        MalformedError, ConflictError, RefusedError: a root may not follow; nothing was written.
    """
    data = DataDir(root)
    data.check()
    folder = data.repository / "metadata"
    lock = data.lock()
    try:
        newest = tuf_files.chain(folder)[-1]
        accepted: dict[int, bytes] = {}
        for document in documents:
            newest = tuf_files.following(document, newest, now=datetime.now(UTC))
            accepted[newest.version] = document
        for version, document in accepted.items():
            durable_files.write(folder / f"{version}.root.json", document)
    except (OSError, RepositoryError, ValueError) as error:
        raise SetupError(f"cannot adopt roots in {folder}: {error}") from error
    finally:
        os.close(lock)
    return [f"{version}.root.json" for version in accepted]

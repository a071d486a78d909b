"""``active.json``: the committed releases, from which the runtime boots alone."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from edge_agent import store
from edge_agent.errors import AgentError
from edge_agent.runtime_api import MAX_ACTIVE_SET_BYTES, ActiveRelease, ActiveSet


class DamagedActiveSetError(AgentError):
    """The file is there and cannot be understood."""


class ActiveSetFile:
    """The file; control is its only writer.

    Attributes:
        path: where it is; once something was committed, it is always there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, ActiveRelease]:
        """Return the committed releases by family; none if there is no file yet.

        Raises:
            DamagedActiveSetError: the file cannot be read or is damaged.
        """
        try:
            with self.path.open("rb") as file:
                payload = file.read(MAX_ACTIVE_SET_BYTES + 1)
            releases = msgspec.json.decode(payload, type=ActiveSet).releases
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DamagedActiveSetError(f"{self.path} is damaged: {error}") from error
        return {release.family: release for release in releases}

    def put(self, release: ActiveRelease) -> None:
        """Make a release the committed one of its family, durably.

        Raises:
            StoreError: the disk refused; the old file stands.
            DamagedActiveSetError: there is no telling what else is committed.
        """
        releases = self.read()
        if releases.get(release.family) != release:
            self._write({**releases, release.family: release})

    def drop(self, family: str) -> None:
        """Remove a family, durably; one that is not there is fine.

        Raises:
            StoreError: the disk refused; the old file stands.
            DamagedActiveSetError: there is no telling what else is committed.
        """
        releases = self.read()
        if releases.pop(family, None) is not None:
            self._write(releases)

    def restore(self, releases: Iterable[ActiveRelease]) -> None:
        """Write the file anew from what the journal knows, durably.

        Raises:
            StoreError: the disk refused.
        """
        self._write({release.family: release for release in releases})

    def _write(self, releases: dict[str, ActiveRelease]) -> None:
        ordered = [releases[family] for family in sorted(releases)]
        payload = msgspec.json.format(msgspec.json.encode(ActiveSet(releases=ordered)))
        store.write_file(self.path, payload)

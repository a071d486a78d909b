"""The director's roots at the server: which key signs assignments, and since when.

Several servers may hold one folder: `follow` takes up what another one adopted.

A root that replaces every assignment key that any earlier one named begins a new epoch: devices
count versions of assignments anew from then on, and so does the server.
"""

import fcntl
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Root, Targets

from fleet_server import tuf_files
from fleet_server.errors import (
    ConflictError,
    RefusedError,
    SetupError,
    StorageFullError,
    UnavailableError,
)
from fleet_server.releases import durable_files


class Director:
    """The chain of roots in ``director/``."""

    def __init__(self, folder: Path) -> None:
        """Verify the chain.

        Raises:
            SetupError: there is none, or a link does not hold.
        """
        self._folder = folder
        try:
            self._chain = tuf_files.chain(folder)
        except (OSError, RepositoryError, ValueError) as error:
            raise SetupError(
                f"cannot use the root metadata in {folder}: {error}; restore it from a backup"
            ) from error

    @property
    def root(self) -> Root:
        """The newest root."""
        return self._chain[-1]

    @property
    def epoch(self) -> int:
        """Version of the root that brought the present assignment keys."""
        epoch, named = self._chain[0].version, set[str]()
        for root in self._chain:
            keys = _assignment_keys(root)
            if not keys & named:
                epoch = root.version
            named |= keys
        return epoch

    def follow(self) -> None:
        """Take up the roots that another process adopted; where there is none, one `stat`.

        Raises:
            UnavailableError: they do not verify.
        """
        try:
            if self.file(f"{self.root.version + 1}.root.json").exists():
                self._chain = tuf_files.chain(self._folder)
        except (OSError, RepositoryError, ValueError) as error:
            raise UnavailableError(
                f"a root in {self._folder} does not hold: {error}; restore it from a backup"
            ) from error

    def file(self, name: str) -> Path:
        """Return where a root lies; the name must have been checked."""
        return self._folder / name

    def has(self, payload: bytes) -> bool:
        """Say whether exactly this root is there already."""
        version = tuf_files.root_of(payload).signed.version
        try:
            return self.file(f"{version}.root.json").read_bytes() == payload
        except OSError:
            return False

    def check(self, payload: bytes, *, now: datetime) -> Root:
        """Return a root that may follow the newest.

        Raises:
            MalformedError, ConflictError, RefusedError: it may not.
        """
        root = tuf_files.following(payload, self.root, now=now)
        if not _assignment_keys(root):
            raise RefusedError(f"director root {root.version} names no assignment key")
        named: set[str] = set().union(*(_assignment_keys(earlier) for earlier in self._chain))
        back = (_assignment_keys(root) & named) - _assignment_keys(self.root)
        if back:
            raise RefusedError(
                f"director root {root.version} brings back the assignment key {min(back)[:16]}, "
                "which was revoked: what it signed then would hold again; use a new key"
            )
        return root

    def adopt(self, payload: bytes, root: Root) -> None:
        """Make a checked root the newest.

        Raises:
            ConflictError: another process has just adopted a root of that version.
            StorageFullError: the disk refuses.
        """
        file = self.file(f"{root.version}.root.json")
        try:
            with (self._folder / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if file.exists():
                    raise ConflictError(
                        f"another server adopted director root {root.version} at the same time; "
                        "look which one it is"
                    )
                durable_files.write(file, payload)
        except OSError as error:
            raise StorageFullError(f"the root could not be stored: {error}") from error
        self._chain.append(root)


def _assignment_keys(root: Root) -> set[str]:
    return set(root.roles[Targets.type].keyids)

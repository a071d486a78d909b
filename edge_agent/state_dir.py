"""Where everything of the agent lies below its one state directory."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import AgentError

_SOCKET_PATH_BYTES = 107
"""What Linux allows in ``sun_path``, without the final zero (unix(7))."""


_PRIVATE = 0o700
_PASSABLE = 0o711


class StateDirError(AgentError):
    """The state directory cannot be used."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """The paths of docs/architecture.md, "State and its owners"."""

    root: Path

    @property
    def identity(self) -> Path:
        """Key, certificate request, certificate, claim, enrolment."""
        return self.root / "identity"

    @property
    def trust(self) -> Path:
        """TUF metadata caches of the release repository and the director."""
        return self.root / "trust"

    @property
    def blobs(self) -> Path:
        """Verified files by SHA-256."""
        return self.root / "blobs"

    @property
    def database(self) -> Path:
        """SQLite: journal, floors, outbox."""
        return self.root / "state.db"

    @property
    def high_water(self) -> Path:
        """A second copy of floors and accepted assignment version."""
        return self.root / "high-water.json"

    @property
    def active_set(self) -> Path:
        """What the runtime boots from."""
        return self.root / "active.json"

    @property
    def engines(self) -> Path:
        """What the runtime has built of models for a GPU: a cache, worth nothing elsewhere."""
        return self.root / "engines"

    @property
    def log(self) -> Path:
        """The newest lines of each process's log."""
        return self.root / "log"

    @property
    def run(self) -> Path:
        """Sockets, pid files, counters: of this boot."""
        return self.root / "run"

    @property
    def runtime_socket(self) -> Path:
        """The V2 protocol, for applications."""
        return self.run / "runtime.sock"

    @property
    def grpc_socket(self) -> Path:
        """The V2 protocol over gRPC, for applications."""
        return self.run / "grpc.sock"

    @property
    def admin_socket(self) -> Path:
        """The runtime's admin routes, for control only."""
        return self.run / "admin.sock"

    @property
    def probes(self) -> Path:
        """What the runtime has tried in a child process: a cache, worth nothing elsewhere."""
        return self.run / "probes.json"

    @property
    def starts(self) -> Path:
        """Which releases the runtime died of while it loaded them, in this life of the agent."""
        return self.run / "starts.json"

    def blob(self, sha256: str) -> Path:
        """The verified file with that hash."""
        return self.blobs / sha256

    def pid_file(self, process: str) -> Path:
        """The locked pid file of ``runtime``, ``control`` or ``supervisor``."""
        return self.run / f"{process}.pid"

    def create(self) -> None:
        """Make the folders, readable by their owner only; ``run/`` lets applications through.

        Those that are there already may have been made by somebody who wants to write into them
        later: what is loaded is verified before, not each time.

        Raises:
            StateDirError: a folder cannot be made or belongs to a stranger, or socket paths below
                it would be too long.
        """
        longest = os.fsencode(self.runtime_socket.absolute())
        if len(longest) > _SOCKET_PATH_BYTES:
            raise StateDirError(
                f"the state directory {self.root} is too deep: {self.runtime_socket.absolute()} "
                f"has {len(longest)} bytes and a socket path may have {_SOCKET_PATH_BYTES}; "
                "choose a shorter directory"
            )
        try:
            self.root.mkdir(mode=_PASSABLE, parents=True, exist_ok=True)
            owners = _owners(self.root)
            _close(self.root, _PASSABLE, owners)
            for private in (self.identity, self.trust, self.blobs):
                private.mkdir(mode=_PRIVATE, exist_ok=True)
                _close(private, _PRIVATE, owners)
            self.run.mkdir(mode=_PASSABLE, exist_ok=True)
            _close(self.run, _PASSABLE, owners)
        except OSError as error:
            raise StateDirError(f"cannot make the state directory {self.root}: {error}") from error


def _owners(root: Path) -> frozenset[int]:
    """Return who may own the folders: the agent's user, root, and whom root works for.

    Root may have been given another user's folder, but not one that just anybody could make.
    """
    owners = {0, os.geteuid()}
    if os.geteuid() == 0 and not root.parent.stat().st_mode & stat.S_IWOTH:
        owners.add(root.stat().st_uid)
    return frozenset(owners)


def _close(folder: Path, mode: int, owners: frozenset[int]) -> None:
    """Take a folder's permissions from strangers.

    Raises:
        StateDirError: it, or the link that leads to it, belongs to one.
        OSError: the disk refused.
    """
    found = folder.stat()
    if not {found.st_uid, folder.lstat().st_uid} <= owners:
        raise StateDirError(
            f"{folder} belongs to the user with the id {found.st_uid}, who could put files there "
            "that the agent would load; find out who made it, and give it to the agent's user "
            "(chown) or choose another state directory"
        )
    if stat.S_IMODE(found.st_mode) & ~mode:
        try:
            folder.chmod(stat.S_IMODE(found.st_mode) & mode)
        except PermissionError:
            # It is root's, who may let a group in; nobody lets everyone write.
            if found.st_uid == os.geteuid() or found.st_mode & stat.S_IWOTH:
                raise

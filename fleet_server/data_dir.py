"""Where everything of the server lies below its one data directory."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from fleet_server.errors import SetupError

_SOCKET_PATH_BYTES = 107
"""What Linux allows in ``sun_path``, without the final zero (unix(7))."""

_ONLINE_FILES = (
    "tls.pem",
    "tls.crt",
    "fleet-ca.crt",
    "claim.pub.pem",
    "ingest.pem",
    "ingest.crt",
)


def check_socket(path: Path) -> None:
    """Accept the place of a socket.

    Raises:
        SetupError: its path is too long.
    """
    length = len(os.fsencode(path.absolute()))
    if length > _SOCKET_PATH_BYTES:
        raise SetupError(
            f"the directory {path.parent.parent} is too deep: {path.absolute()} has {length} bytes "
            f"and a socket path may have {_SOCKET_PATH_BYTES}; choose a shorter directory"
        )


@dataclass(frozen=True, slots=True)
class DataDir:
    """The paths of docs/architecture.md; `skerry provision init` makes what `check` asks for."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """The optional ``server.toml``."""
        return self.root / "server.toml"

    @property
    def online(self) -> Path:
        """Keys and certificates that the serving process uses."""
        return self.root / "online"

    @property
    def signer(self) -> Path:
        """The assignment key and the signer's database: only the signer process opens them."""
        return self.root / "signer"

    @property
    def repository(self) -> Path:
        """The TUF release repository."""
        return self.root / "repository"

    @property
    def deltas(self) -> Path:
        """The cache of deltas between releases; may be removed while the server is down."""
        return self.root / "deltas"

    @property
    def director(self) -> Path:
        """Root metadata of the director."""
        return self.root / "director"

    @property
    def database(self) -> Path:
        """SQLite."""
        return self.root / "fleet.db"

    @property
    def broker(self) -> Path:
        """Configuration, revocation list and store of a Mosquitto beside the server."""
        return self.root / "broker"

    @property
    def run(self) -> Path:
        """The sockets of signer and Mosquitto, and the lock of the running server."""
        return self.root / "run"

    @property
    def signer_socket(self) -> Path:
        """Where the signer listens."""
        return self.run / "signer.sock"

    def check(self) -> None:
        """Accept the directory if it was provisioned.

        Raises:
            SetupError: it lacks what provisioning puts there, or its path is too long.
        """
        for part in (self.online, self.signer, self.repository, self.director):
            if not part.is_dir():
                raise SetupError(
                    f"{self.root} is not the data directory of a fleet server: {part.name}/ is "
                    "missing; make one with `skerry provision init` and pass its server/ folder"
                )
        check_socket(self.signer_socket)

    def check_files(self, *, assignment_key: bool = True) -> None:
        """Accept the directory if every key and certificate of a server is there.

        Args:
            assignment_key: whether the signer's key is a file here.

        Raises:
            SetupError: one is missing; the message names it.
        """
        for path in (
            *(self.online / name for name in _ONLINE_FILES),
            self.director / "1.root.json",
            *([self.signer / "assignment.pem"] if assignment_key else []),
        ):
            if not path.is_file():
                raise SetupError(
                    f"{path} is missing; restore it from a backup of the data directory, or, if "
                    "this is a new server, copy the whole server/ folder of "
                    "`skerry provision init` again"
                )

    def lock(self) -> int:
        """Claim the directory for this process until it ends; returns the locked descriptor.

        Raises:
            SetupError: another server runs on it.
        """
        path = self.run / "server.lock"
        try:
            self.run.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(f"cannot write to the data directory {self.root}: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise SetupError(
                f"a fleet server (pid {holder}) already runs on {self.root}; stop it first"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

"""Where the demo keeps its state and which ports it uses."""

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from edge_agent.pid_file import PidFile
from skerry.demo.errors import DemoError

FAMILY = "fashion_mnist"
DEVICES = ("cam-01", "cam-02", "cam-03")
HOST = "127.0.0.1"
DEFAULT_BASE_PORT = 8440


def default_root() -> Path:
    """Return the folder of the demo's state; short, because socket paths may not be long."""
    return Path.home() / ".skerry-demo"


def reference_model() -> Path:
    """Return the folder of the reference model: in the installed package or in the repository.

    Raises:
        DemoError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "reference_models", package.parent / "models"):
        if (folder / FAMILY / "card.json").exists():
            return folder / FAMILY
    raise DemoError(
        f"the reference model {FAMILY} is missing: expected models/{FAMILY}/card.json in the "
        "repository; rebuild it with models/fashion_mnist/recipe.py or install skerry from a wheel"
    )


@dataclass(frozen=True, slots=True)
class DemoDir:
    """The one directory below which everything of the demo lies."""

    root: Path

    @property
    def authority(self) -> Path:
        """Roots of trust, as `skerry provision init` makes them."""
        return self.root / "authority"

    @property
    def server(self) -> Path:
        """The server's data directory."""
        return self.authority / "server"

    @property
    def passphrase_file(self) -> Path:
        """The passphrase of the offline keys. A real one is not kept beside them."""
        return self.root / "passphrase"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.root / "logs"

    def device(self, name: str) -> Path:
        """The state directory of a device."""
        return self.root / name

    def claim(self, name: str) -> Path:
        """The claim bundle of a device."""
        return self.root / "claims" / f"{name}.json"

    def bundle(self, release: str) -> Path:
        """A packed release."""
        return self.root / "bundles" / f"{release}.bundle"

    def token_file(self, role: str) -> Path:
        """The API token of a role."""
        return self.root / "tokens" / role

    @property
    def _mark(self) -> Path:
        return self.root / ".skerry-demo"

    def claim_for_this_process(self) -> PidFile:
        """Make the directory, if need be, and keep other demos off it while this process lives.

        Raises:
            DemoError: it has content that no demo made, or cannot be made.
            PidFileError: another demo runs on it.
        """
        try:
            if not self._mark.exists() and self.root.exists() and any(self.root.iterdir()):
                raise DemoError(
                    f"{self.root} has content that skerry demo did not make, so it is left alone; "
                    "choose another --dir"
                )
            self._pid_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mark.touch()
        except OSError as error:
            raise DemoError(f"cannot make the demo's directory {self.root}: {error}") from error
        return PidFile(self._pid_file)

    def empty(self) -> None:
        """Remove everything in the directory but what `claim_for_this_process` made.

        Raises:
            DemoError: something cannot be removed.
        """
        try:
            for entry in self.root.iterdir():
                if entry not in (self._mark, self._pid_file.parent):
                    _remove(entry)
        except OSError as error:
            raise DemoError(f"cannot empty {self.root}: {error}") from error

    def remove(self) -> None:
        """Remove the directory.

        Raises:
            DemoError: something in it cannot be removed.
        """
        try:
            shutil.rmtree(self.root)
        except OSError as error:
            raise DemoError(f"cannot remove {self.root}: {error}") from error

    @property
    def _pid_file(self) -> Path:
        return self.root / "run" / "demo.pid"

    def create(self) -> None:
        """Make the folders, for this user only.

        Raises:
            DemoError: they cannot be made.
        """
        try:
            for folder in ("claims", "bundles", "tokens", "logs"):
                (self.root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise DemoError(f"cannot make the demo's directory {self.root}: {error}") from error


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of the demo."""

    https: int
    mqtt: int
    devices: tuple[int, ...]

    @classmethod
    def from_base(cls, base: int) -> "Ports":
        """Take consecutive ports: HTTPS, MQTT, then one for each device."""
        return cls(base, base + 1, tuple(base + 2 + index for index in range(len(DEVICES))))

    @classmethod
    def free(cls) -> "Ports":
        """Take ports that nobody uses now."""
        with_sockets = [socket.create_server((HOST, 0)) for _ in range(2 + len(DEVICES))]
        numbers = [bound.getsockname()[1] for bound in with_sockets]
        for bound in with_sockets:
            bound.close()
        return cls(numbers[0], numbers[1], tuple(numbers[2:]))

    def check_free(self) -> None:
        """Make sure that every port can be bound.

        Raises:
            DemoError: one is in use; the message says which and what for.
        """
        uses = {self.https: "the fleet server's HTTPS", self.mqtt: "its MQTT broker"}
        uses |= {port: f"device {name}" for port, name in zip(self.devices, DEVICES, strict=True)}
        for port, use in uses.items():
            try:
                socket.create_server((HOST, port)).close()
            except OSError as error:
                raise DemoError(
                    f"port {port} on {HOST}, wanted for {use}, cannot be used: "
                    f"{os.strerror(error.errno or 0)}. Stop what holds it, or choose other ports: "
                    "skerry demo --base-port 9440"
                ) from error

"""Where Mosquitto and whoever keeps it told meet: beside the server, or on a machine of its own."""

from dataclasses import dataclass
from pathlib import Path

from fleet_server.data_dir import DataDir


@dataclass(frozen=True, slots=True)
class MosquittoFiles:
    """The paths.

    Attributes:
        folder: what is written for Mosquitto, and its store.
        run: process id and socket, while it runs.
        shown: holds ``tls.crt`` and ``tls.pem``, which it shows to devices.
    """

    folder: Path
    run: Path
    shown: Path

    @classmethod
    def beside(cls, data: DataDir) -> "MosquittoFiles":
        """Return those of a Mosquitto on the server's machine."""
        return cls(data.broker, data.run, data.online)

    @classmethod
    def apart(cls, folder: Path) -> "MosquittoFiles":
        """Return those of a Mosquitto on a machine of its own, all below one folder."""
        return cls(folder, folder / "run", folder)

    @property
    def configuration(self) -> Path:
        """What Mosquitto is started with."""
        return self.folder / "mosquitto.conf"

    @property
    def access(self) -> Path:
        """Who may do what on which topic."""
        return self.folder / "access"

    @property
    def authorities(self) -> Path:
        """The folder of the device CAs (`fleet_server.broker.client_authorities`)."""
        return self.folder / "authorities"

    @property
    def revoked(self) -> Path:
        """The revocation lists, one for each device CA."""
        return self.folder / "revoked.pem"

    @property
    def certificate(self) -> Path:
        """What it shows."""
        return self.shown / "tls.crt"

    @property
    def pid(self) -> Path:
        """Holds the process id of the running Mosquitto."""
        return self.run / "mosquitto.pid"

    @property
    def control(self) -> Path:
        """The socket by which sessions are ended."""
        return self.run / "broker.sock"

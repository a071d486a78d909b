"""What assigning needs beside it: the signer without its socket, releases, devices."""

from sqlalchemy import insert
from tuf.api.metadata import Metadata, Targets

from fleet_server.assignments.signer import AssignmentSigner, VersionNotHigherError
from fleet_server.assignments.signer_client import VersionTakenError
from fleet_server.assignments.signing import SignBatch, SignRequest
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError, UnavailableError
from fleet_server.releases.tables import Release


class InProcessSigner:
    """The real signer without its socket; it can be down."""

    def __init__(self, signer: AssignmentSigner) -> None:
        self.signer = signer
        self.up = True

    async def sign(self, requests: list[SignRequest]) -> list[bytes]:
        if not self.up:
            raise UnavailableError("the signer does not answer")
        try:
            return [text.encode() for text in self.signer.sign(SignBatch(requests=requests))]
        except VersionNotHigherError as error:
            raise VersionTakenError(str(error), highest=error.highest) from error

    async def keyids(self) -> list[str]:
        return self.signer.keyids()

    async def answers(self) -> bool:
        return self.up


class Published:
    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}

    def publish_assignment(self, device_id: str, document: bytes) -> None:
        self.documents[device_id] = document


class Index:
    """Releases of every version, but for those that were withdrawn."""

    def __init__(self) -> None:
        self.withdrawn = {"9.9.9"}

    async def installable(self, family: str, version: str) -> Release:
        if version in self.withdrawn:
            raise NotFoundError(f"release {family} {version} was withdrawn")
        return Release(
            family=family,
            version=version,
            manifest_path=f"models/{family}/{version}/manifest.json",
            manifest_length=10,
            manifest_sha256="0" * 64,
        )


async def add_devices(
    database: Database, *names: str, claims: dict[str, str] | None = None
) -> None:
    rows = [
        {
            "id": name,
            "claim": (claims or {}).get(name, ""),
            "public_key_pem": "",
            "public_key_sha256": "",
            "certificate_pem": "",
            "certificate_serial": "",
            "certificate_expires_ms": 0,
            "enrolled_ms": 0,
            "online": False,
        }
        for name in names
    ]
    async with database.writing() as session:
        await session.execute(insert(Device), rows)


def listed(document: bytes) -> list[str]:
    return sorted(Metadata[Targets].from_bytes(document).signed.targets)

"""A Skerry fleet server on one core, with enrolled devices that poll it."""

import asyncio
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from benchmarks.measuring.server_process import ServerProcess, free_port
from fleet_protocol.claims import DEVICE_AUDIENCE, DEVICE_TOKEN_LIFETIME_S
from fleet_server import migrate
from fleet_server.assignments.tables import Assignment
from fleet_server.clock import unix_ms
from fleet_server.database import Database, sqlite_url
from fleet_server.devices.certificates import RequestedKey
from fleet_server.devices.polls import PATH
from fleet_server.devices.tables import Device
from provisioning import ceremony

_DOCUMENT_BYTES = 2000


@dataclass(frozen=True)
class PollingDevice:
    """One device, as far as its polls need it."""

    device_id: str
    key: ECKey
    public: RequestedKey
    document: bytes

    @classmethod
    def make(cls, number: int) -> "PollingDevice":
        """Make a device with a key of its own."""
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        name = f"device-{number:05d}"
        document = name.encode().ljust(_DOCUMENT_BYTES)
        return cls(name, ECKey.import_key(pem), RequestedKey(private.public_key()), document)

    def request(self, *, salt: int = 0) -> bytes:
        """Return a poll; each salt makes another token."""
        now = int(datetime.now(UTC).timestamp())
        claims = {
            "sub": self.device_id,
            "aud": DEVICE_AUDIENCE,
            "iat": now,
            "exp": now + DEVICE_TOKEN_LIFETIME_S,
            "jti": str(salt),
        }
        token = jwt.encode({"alg": "ES256"}, claims, self.key)
        lines = (
            f"GET {PATH} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {token}",
            f'If-None-Match: "{sha256(self.document).hexdigest()}"',
            "\r\n",
        )
        return "\r\n".join(lines).encode()


class PolledFleet:
    """The server and its devices; nothing runs until `start`."""

    def __init__(self, folder: Path, devices: int) -> None:
        """Provision, and enrol the devices in the database."""
        plan = ceremony.Plan.of(families=["polled"], server_names=["localhost", "127.0.0.1"])
        self._authority = ceremony.create(
            folder / "authority", plan, passphrase=b"of a benchmark", now=datetime.now(UTC)
        )
        self._folder = folder
        self.devices = [PollingDevice.make(number) for number in range(devices)]
        self.port = free_port()
        asyncio.run(self._enroll())

    @property
    def tls(self) -> ssl.SSLContext:
        """What trusts the server."""
        return ssl.create_default_context(cafile=self._authority.fleet_ca)

    def start(self, core: int) -> ServerProcess:
        """Start the server on one core and wait until it is ready."""
        process = ServerProcess(
            [
                *("taskset", "--cpu-list", str(core)),
                *(sys.executable, "-m", "fleet_server", "--data", str(self._authority.server)),
            ],
            log=self._folder / "server.log",
            environment={
                "SKERRY_SERVER_HTTPS_PORT": str(self.port),
                "SKERRY_SERVER_MQTT_PORT": str(free_port()),
            },
        )
        process.wait_until(self._is_ready)
        return process

    def _is_ready(self) -> bool:
        with urllib3.PoolManager(ca_certs=str(self._authority.fleet_ca), retries=False) as pool:
            try:
                answer = pool.request("GET", f"https://localhost:{self.port}/health/ready")
            except urllib3.exceptions.HTTPError:
                return False
        return answer.status == 200  # noqa: PLR2004 (200 OK)

    async def _enroll(self) -> None:
        url = sqlite_url(self._authority.server / "fleet.db")
        await migrate.upgrade(url)
        database = Database(url)
        async with database.writing() as session:
            session.add_all(_rows(self.devices))
            await session.flush()
            session.add_all(
                Assignment(
                    device_id=device.device_id,
                    version=1,
                    signed_ms=unix_ms(datetime.now(UTC)),
                    expires_ms=unix_ms(datetime.now(UTC) + timedelta(days=30)),
                    entries="[]",
                    document=device.document,
                )
                for device in self.devices
            )
        await database.close()


def _rows(devices: Sequence[PollingDevice]) -> list[Device]:
    now = datetime.now(UTC)
    return [
        Device(
            id=device.device_id,
            public_key_pem=device.public.pem,
            public_key_sha256=device.public.sha256,
            certificate_pem="",
            certificate_serial=device.device_id,
            certificate_expires_ms=unix_ms(now + timedelta(days=90)),
            enrolled_ms=unix_ms(now),
            online=False,
        )
        for device in devices
    ]

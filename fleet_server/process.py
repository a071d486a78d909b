"""The composition root: one process with API, broker and ingest, and the signer as its child.

Things stop in the opposite order of their start: requests are finished, what was received is
stored and acknowledged, the broker closes, the signer and the database last.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop
from sqlalchemy import text
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from fleet_protocol.errors import SkerryError
from fleet_server import listening, logs, migrate, settings
from fleet_server.accounts.service import Accounts
from fleet_server.app import create_app
from fleet_server.assignments.service import Assignments
from fleet_server.assignments.signer_child import SignerChild
from fleet_server.assignments.signer_client import SignerClient
from fleet_server.broker import tls as broker_tls
from fleet_server.broker.embedded import EmbeddedBroker
from fleet_server.clock import utc_now
from fleet_server.data_dir import DataDir
from fleet_server.database import Database, sqlite_url
from fleet_server.devices.certificates import DeviceCa
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.registry import EnrolledDevices
from fleet_server.devices.service import Devices
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import FleetError, SetupError
from fleet_server.releases.repository import Repository
from fleet_server.releases.service import Releases
from fleet_server.services import Services
from fleet_server.settings import ServerSettings
from fleet_server.telemetry.ingest import Ingest
from fleet_server.telemetry.mqtt_link import MqttLink, tls_context
from fleet_server.telemetry.service import Telemetry
from fleet_server.telemetry.store import TelemetryStore

logger = logging.getLogger(__name__)

_MAINTENANCE_S = 600.0
_GRACE_S = 10
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared with, not bound)


@dataclass(frozen=True, slots=True)
class Ports:
    """The listening sockets, opened before everything else."""

    https: socket.socket
    mqtt: socket.socket


class _HttpServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the composition root."""
        yield


class _Components:
    """What the health routes ask about."""

    def __init__(
        self, *, database: Database, broker: EmbeddedBroker, link: MqttLink, signer: SignerClient
    ) -> None:
        self._database = database
        self._broker = broker
        self._link = link
        self._signer = signer

    async def states(self) -> dict[str, bool]:
        """Say of each component whether it works now."""
        try:
            async with self._database.reading() as session:
                await session.execute(text("SELECT 1"))
            database = True
        except FleetError:
            database = False
        return {
            "database": database,
            "broker": self._broker.serving,
            "ingest": self._link.connected,
            "signer": await self._signer.answers(),
        }


class _Lifetime:
    """Runs background tasks; one that ends by itself ends the process."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.failed = False

    @asynccontextmanager
    async def background(
        self, name: str, work: Coroutine[object, object, None]
    ) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        try:
            yield task
        finally:
            self.stop.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.stop.is_set() or task.cancelled():
            return
        self.failed = True
        logger.error("task_ended", extra={"task": task.get_name()}, exc_info=task.exception())
        self.stop.set()


async def serve(data: DataDir, config: ServerSettings, ports: Ports) -> int:
    """Run the server until a signal; returns the exit status.

    Raises:
        SetupError: keys, certificates or the repository cannot be used.
    """
    life = _Lifetime()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.stop.set)
    async with AsyncExitStack() as stack:
        database = Database(sqlite_url(data.database))
        stack.push_async_callback(database.close)
        releases = await _releases(data, database)
        store = TelemetryStore(database=database, clock=utc_now)
        await store.forget_presence()

        child = SignerChild(data=data, log_level=config.log_level)
        await stack.enter_async_context(life.background("signer", child.run()))
        broker = await _broker(data, config, ports, database)
        stack.push_async_callback(broker.shutdown)
        ingest = Ingest(store, monotonic=time.monotonic)
        link = _link(data, config, ingest)
        signer = SignerClient(data.signer_socket)
        assignments = Assignments(
            database=database,
            releases=releases,
            signer=signer,
            downlink=link,
            director=await asyncio.to_thread(_director_root, data),
            clock=utc_now,
        )

        async def republish() -> None:
            await link.publish_assignments(assignments.documents())

        await stack.enter_async_context(life.background("link", link.run(republish)))
        storing = await stack.enter_async_context(life.background("ingest", ingest.run(link)))
        stack.push_async_callback(_finish, ingest, storing, life)
        await stack.enter_async_context(
            life.background("maintenance", _maintain(releases, assignments))
        )
        services = Services(
            settings=config,
            database=database,
            accounts=Accounts(database=database, clock=utc_now),
            enrollment=Enrollment(
                database=database,
                verifier=ClaimVerifier.load(data.online / "claim.pub.pem"),
                ca=DeviceCa.load(
                    key_file=data.online / "device-ca.pem",
                    certificate_file=data.online / "device-ca.crt",
                ),
                clock=utc_now,
            ),
            devices=Devices(database=database, connections=broker, clock=utc_now),
            releases=releases,
            assignments=assignments,
            telemetry=Telemetry(database=database),
            components=_Components(database=database, broker=broker, link=link, signer=signer),
        )
        http = _http_server(data, services)
        serving = await stack.enter_async_context(
            life.background("https", http.serve([ports.https]))
        )
        stack.push_async_callback(_finish_requests, http, serving, life)
        logger.info(
            "server_started",
            extra={
                "pid": os.getpid(),
                "https": f"{config.host}:{config.https_port}",
                "mqtt": f"{config.host}:{config.mqtt_port}",
                "data": str(data.root),
            },
        )
        await life.stop.wait()
        logger.info("server_stopping")
    logger.info("server_stopped")
    return 1 if life.failed else 0


async def _releases(data: DataDir, database: Database) -> Releases:
    repository = await asyncio.to_thread(Repository, data.repository, data.online)
    await asyncio.to_thread(repository.heal, now=utc_now())
    releases = Releases(repository=repository, database=database, clock=utc_now)
    await releases.reindex()
    return releases


async def _broker(
    data: DataDir, config: ServerSettings, ports: Ports, database: Database
) -> EmbeddedBroker:
    broker = EmbeddedBroker(
        listener=ports.mqtt,
        tls=broker_tls.server_context(
            certificate=data.online / "tls.crt",
            key=data.online / "tls.pem",
            client_ca=data.online / "device-ca.crt",
        ),
        registry=EnrolledDevices(database),
        max_connections=config.max_connections,
    )
    await broker.start()
    return broker


def _link(data: DataDir, config: ServerSettings, ingest: Ingest) -> MqttLink:
    return MqttLink(
        host=_ANY_HOST.get(config.host, config.host),
        port=config.mqtt_port,
        tls=tls_context(
            certificate=data.online / "ingest.crt",
            key=data.online / "ingest.pem",
            ca=data.online / "fleet-ca.crt",
        ),
        on_message=ingest.receive,
    )


def _director_root(data: DataDir) -> Root:
    """Read the director's newest root.

    Raises:
        SetupError: there is none, or it cannot be read.
    """
    try:
        paths = data.director.glob("*.root.json")
        newest = max(paths, key=lambda path: int(path.name.split(".")[0]))
        return Metadata[Root].from_bytes(newest.read_bytes()).signed
    except (OSError, ValueError, RepositoryError) as error:
        raise SetupError(f"cannot read the root metadata in {data.director}: {error}") from error


def _http_server(data: DataDir, services: Services) -> _HttpServer:
    config = uvicorn.Config(
        create_app(services),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=data.online / "tls.crt",
        ssl_keyfile=data.online / "tls.pem",
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=1000,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"cannot use the certificate {data.online / 'tls.crt'}: {error}"
        ) from error
    return _HttpServer(config)


async def _finish_requests(http: _HttpServer, serving: asyncio.Task[None], life: _Lifetime) -> None:
    life.stop.set()
    http.should_exit = True
    await asyncio.wait([serving], timeout=_GRACE_S + 5)


async def _finish(ingest: Ingest, storing: asyncio.Task[None], life: _Lifetime) -> None:
    life.stop.set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            await ingest.finish()
            await asyncio.wait([storing])


async def _maintain(releases: Releases, assignments: Assignments) -> None:
    """Renew what would expire; what fails is tried again, long before it matters."""
    while True:
        await asyncio.sleep(_MAINTENANCE_S)
        try:
            await releases.renew()
            renewed = await assignments.renew()
            if renewed:
                logger.info("assignments_renewed", extra={"count": renewed})
        except (FleetError, OSError) as error:
            logger.error("maintenance_failed", extra={"reason": str(error)})  # noqa: TRY400


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the server; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="fleet_server", description="The fleet server: API, broker, ingest and signer."
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory")
    data = DataDir(parser.parse_args(arguments).data.absolute())
    try:
        data.check()
        config = settings.load(data.settings_file, os.environ)
        logs.configure(config.log_level)
        ports = Ports(
            https=listening.open_port(host=config.host, port=config.https_port, key="https_port"),
            mqtt=listening.open_port(host=config.host, port=config.mqtt_port, key="mqtt_port"),
        )
        data.lock()
        migrate.upgrade(data)
        return uvloop.run(serve(data, config, ports))
    except SkerryError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 (for the person at the terminal)
        return 1

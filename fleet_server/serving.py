"""The composition root: one process with API, broker and ingest, and the signer as its child.

Things stop in the opposite order of their start: requests are finished, what was received is
stored and acknowledged, the broker closes, the signer and the database last.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from fleet_server import collector, https, maintenance, settings
from fleet_server.accounts import first_admin
from fleet_server.accounts import wiring as accounts_wiring
from fleet_server.accounts.openid import OpenId
from fleet_server.accounts.openid_settings import provider
from fleet_server.alerts import wiring as alerts_wiring
from fleet_server.app import create_app
from fleet_server.assignments.director import Director
from fleet_server.assignments.service import Assignments
from fleet_server.assignments.signer_child import SignerChild
from fleet_server.assignments.signer_client import SignerClient
from fleet_server.broker import wiring as broker_wiring
from fleet_server.broker.followers import Followers
from fleet_server.broker.publication import Publication
from fleet_server.broker.wiring import Broker
from fleet_server.clock import utc_now
from fleet_server.commands import wiring as commands_wiring
from fleet_server.components import ProcessComponents
from fleet_server.data_dir import DataDir
from fleet_server.database import Database
from fleet_server.deltas.service import Deltas
from fleet_server.devices.authorities import DeviceCas
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.groups import Groups
from fleet_server.devices.polls import Polls
from fleet_server.devices.registry import EnrolledDevices
from fleet_server.devices.renewal import Renewal
from fleet_server.devices.service import Devices
from fleet_server.devices.silence import SilenceWatch
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.https import HttpServer
from fleet_server.lifetime import Lifetime
from fleet_server.listening import Ports
from fleet_server.monitoring.fleet_state import FleetState
from fleet_server.monitoring.metrics import ServerMetrics
from fleet_server.releases.repository import Repository
from fleet_server.releases.service import Releases
from fleet_server.rollouts.founding import Founding
from fleet_server.rollouts.loop import RolloutLoop
from fleet_server.rollouts.orders import Orders
from fleet_server.rollouts.service import Rollouts
from fleet_server.services import Services
from fleet_server.settings import ServerSettings
from fleet_server.telemetry.hearing import Hearing
from fleet_server.telemetry.ingest import Ingest
from fleet_server.telemetry.mqtt_link import MqttLink
from fleet_server.telemetry.retention import Kept, Retention
from fleet_server.telemetry.service import Telemetry
from fleet_server.telemetry.store import TelemetryStore
from fleet_server.trust.device_authorities import DeviceAuthorities
from fleet_server.trust.live_certificates import LiveCertificates, renew_ingest
from fleet_server.trust.service import Trust
from fleet_server.trust.succession import Succession

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Everything of one server, made and not yet started."""

    database: Database
    store: TelemetryStore
    child: SignerChild
    registry: EnrolledDevices
    broker: Broker
    ingest: Ingest
    link: MqttLink
    services: Services
    https: HttpServer
    certificates: LiveCertificates
    renew_ingest: Callable[[], bool]
    succession: Succession


async def serve(data: DataDir, config: ServerSettings, ports: Ports) -> int:
    """Run the server until a signal; returns the exit status.

    Raises:
        SetupError: keys, certificates or the repository cannot be used.
        UnavailableError: the database failed at the start.
    """
    life = Lifetime()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.stop.set)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url(config, data))
        stack.push_async_callback(database.close)
        parts = await _made(data, config, ports, database, life)
        await _start(parts, ports, life, stack)
        collector.settle()
        logger.info(
            "server_started",
            extra={
                "pid": os.getpid(),
                "https": f"{config.host}:{config.https_port}",
                "mqtt": config.broker_url or f"{config.host}:{config.mqtt_port}",
                "data": str(data.root),
            },
        )
        await first_admin.greet(parts.services.logins, port=config.https_port)
        await life.stop.wait()
        logger.info("server_stopping")
        if not life.failed:
            await asyncio.sleep(config.drain_s)
    logger.info("server_stopped")
    return 1 if life.failed else 0


async def _made(
    data: DataDir, config: ServerSettings, ports: Ports, database: Database, life: Lifetime
) -> _Parts:
    releases = await _releases(data, config, database)
    store = TelemetryStore(database=database, clock=utc_now)
    registry = EnrolledDevices(database, clock=utc_now)
    ingest = Ingest(store, monotonic=time.monotonic)
    link, ingest_context = broker_wiring.link(data, config, ingest)
    polls = Polls(database=database, clock=utc_now, monotonic=time.monotonic)
    signer = SignerClient(data.signer_socket)
    director = await asyncio.to_thread(Director, data.director)
    cas = DeviceCas(data.online)
    broker_context = broker_wiring.serving_context(data, cas)
    publication = Publication(database=database, cas=cas, clock=utc_now)
    followers = Followers(database=database, clock=utc_now)
    broker: Broker = (
        broker_wiring.external(data, publication, followers, link)
        if ports.mqtt is None
        else broker_wiring.embedded(ports.mqtt, broker_context, config, registry)
    )
    accounts, users, logins = accounts_wiring.wired(database, utc_now)
    assignments = Assignments(
        database=database,
        releases=releases,
        signer=signer,
        downlink=link,
        director=director,
        clock=utc_now,
    )
    components = ProcessComponents(
        database=database, broker=broker, link=link, signer=signer, stop=life.stop
    )
    services = Services(
        settings=config,
        database=database,
        accounts=accounts,
        users=users,
        logins=logins,
        openid=OpenId(settings=provider(config), database=database, logins=logins, clock=utc_now),
        enrollment=Enrollment(
            database=database,
            verifier=ClaimVerifier.load(data.online / "claim.pub.pem"),
            ca=cas,
            clock=utc_now,
        ),
        renewal=Renewal(database=database, ca=cas, clock=utc_now),
        devices=Devices(database=database, connections=(polls, broker), clock=utc_now),
        polls=polls,
        groups=Groups(database=database, clock=utc_now),
        releases=releases,
        deltas=Deltas(folder=data.deltas, max_bytes=config.delta_cache_bytes),
        assignments=assignments,
        founding=Founding(database=database, clock=utc_now),
        rollouts=Rollouts(database=database, clock=utc_now),
        telemetry=Telemetry(database=database),
        metrics=ServerMetrics(
            logins=logins.watch.counts,
            uplinks=lambda: ingest.counts,
            backlog=lambda: ingest.waiting,
            connections=lambda: broker.connections,
        ),
        fleet_state=FleetState(
            database=database, components=components, followers=followers, clock=utc_now
        ),
        components=components,
        trust=Trust(
            releases=releases,
            assignments=assignments,
            director=director,
            followers=followers,
            online=data.online,
            clock=utc_now,
        ),
        authorities=DeviceAuthorities(database=database, cas=cas, online=data.online),
        publication=publication,
        followers=followers,
        alerts=alerts_wiring.wired(database, utc_now, config),
        commands=commands_wiring.wired(database, utc_now, signer=signer, downlink=link),
    )
    renew = partial(renew_ingest, data.online, cas, utc_now)
    server = https.make_server(data, create_app(services), polls=polls)
    return _Parts(
        database=database,
        store=store,
        child=SignerChild(data=data, log_level=config.log_level),
        registry=registry,
        broker=broker,
        ingest=ingest,
        link=link,
        services=services,
        https=server,
        certificates=LiveCertificates(
            online=data.online,
            serving=[broker_context, *([server.config.ssl] if server.config.ssl else [])],
            ingest=ingest_context,
        ),
        renew_ingest=renew,
        succession=Succession(
            cas=cas,
            tell_broker=partial(broker_wiring.trust_anew, broker, broker_context, cas),
            check_taken=partial(broker_wiring.check_takes, data=data, config=config),
            renew_ingest=renew,
        ),
    )


async def _start(parts: _Parts, ports: Ports, life: Lifetime, stack: AsyncExitStack) -> None:
    """Start the parts; what is pushed on the stack stops them, the last one first."""
    services = parts.services
    await parts.store.forget_presence()
    await stack.enter_async_context(life.background("signer", parts.child.run()))
    await broker_wiring.start(parts.broker, parts.registry, services.settings, life, stack)

    async def publish_all() -> None:
        await parts.link.publish_assignments(services.assignments.documents())
        await services.commands.mailboxes.publish_filled()

    await stack.enter_async_context(life.background("polls", services.polls.run()))
    await stack.enter_async_context(life.background("link", parts.link.run(publish_all)))
    storing = await stack.enter_async_context(
        life.background("ingest", parts.ingest.run(parts.link))
    )
    stack.push_async_callback(_store_the_rest, parts.ingest, storing)
    await stack.enter_async_context(
        life.background("maintenance", maintenance.run(services, parts.renew_ingest))
    )
    hearing = Hearing(database=services.database, clock=utc_now, hears=lambda: parts.link.connected)
    await stack.enter_async_context(life.background("hearing", hearing.run()))
    silence = SilenceWatch(database=services.database, clock=utc_now)
    await stack.enter_async_context(life.background("silence", silence.run()))
    await stack.enter_async_context(life.background("retention", _retention(services).run()))
    await stack.enter_async_context(life.background("certificates", parts.certificates.run()))
    await stack.enter_async_context(life.background("succession", parts.succession.run()))
    await stack.enter_async_context(life.background("deltas", services.deltas.run()))
    await stack.enter_async_context(life.background("rollouts", _rollout_loop(services).run()))
    await stack.enter_async_context(life.background("alerts", services.alerts.loop.run()))
    await stack.enter_async_context(life.background("commands", services.commands.loop.run()))
    serving = await stack.enter_async_context(
        life.background("https", parts.https.serve([ports.https]))
    )
    stack.push_async_callback(parts.https.finish, serving)
    stack.callback(life.stop.set)


def _retention(services: Services) -> Retention:
    config = services.settings
    kept = Kept(
        windows=timedelta(days=config.telemetry_days) if config.telemetry_days else None,
        events=timedelta(days=config.event_days) if config.event_days else None,
    )
    return Retention(database=services.database, kept=kept, clock=utc_now)


def _rollout_loop(services: Services) -> RolloutLoop:
    return RolloutLoop(
        rollouts=services.rollouts,
        founding=services.founding,
        orders=Orders(database=services.database, assignments=services.assignments, clock=utc_now),
        interval_s=services.settings.rollout_interval_s,
    )


async def _releases(data: DataDir, config: ServerSettings, database: Database) -> Releases:
    repository = await asyncio.to_thread(
        partial(Repository, data.repository, data.online, keys=settings.online_keys(config, data))
    )
    await asyncio.to_thread(repository.heal, now=utc_now())
    releases = Releases(repository=repository, database=database, clock=utc_now)
    await releases.reindex()
    return releases


async def _store_the_rest(ingest: Ingest, storing: asyncio.Task[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(https.GRACE_S):
            ingest.finish()
            await asyncio.wait([storing])

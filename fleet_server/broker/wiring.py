"""Makes and starts the broker that the settings mean: the embedded one, or the link to another."""

import socket
import ssl
from contextlib import AsyncExitStack
from ipaddress import ip_address
from urllib.parse import urlsplit

from fleet_server.broker import probe, revocation
from fleet_server.broker import tls as broker_tls
from fleet_server.broker.embedded import EmbeddedBroker
from fleet_server.broker.external import ExternalBroker
from fleet_server.broker.followers import Followers
from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.broker.publication import Publication
from fleet_server.clock import utc_now
from fleet_server.data_dir import DataDir
from fleet_server.devices.authorities import DeviceCas
from fleet_server.devices.certificates import DeviceCa
from fleet_server.devices.registry import EnrolledDevices
from fleet_server.lifetime import Lifetime
from fleet_server.settings import ServerSettings
from fleet_server.telemetry.ingest import Ingest
from fleet_server.telemetry.mqtt_link import MqttLink, tls_context

Broker = EmbeddedBroker | ExternalBroker

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared with, not bound)


def link(data: DataDir, config: ServerSettings, ingest: Ingest) -> tuple[MqttLink, ssl.SSLContext]:
    """Return the server's own connection to the broker, not yet made, and its side of TLS.

    Raises:
        SetupError: key or certificate cannot be used.
    """
    host, port = _address(config)
    context = tls_context(
        certificate=data.online / "ingest.crt",
        key=data.online / "ingest.pem",
        ca=data.online / "fleet-ca.crt",
        check_name=not _is_loopback(host),
    )
    return MqttLink(host=host, port=port, tls=context, on_message=ingest.receive), context


def serving_context(data: DataDir, cas: DeviceCas) -> ssl.SSLContext:
    """Return the embedded broker's side of TLS.

    Raises:
        SetupError: key or certificate cannot be used.
    """
    return broker_tls.server_context(
        certificate=data.online / "tls.crt",
        key=data.online / "tls.pem",
        client_cas=cas.pem,
    )


def embedded(
    listener: socket.socket, tls: ssl.SSLContext, config: ServerSettings, registry: EnrolledDevices
) -> EmbeddedBroker:
    """Return the broker of this process, not yet started."""
    return EmbeddedBroker(
        listener=listener, tls=tls, registry=registry, max_connections=config.max_connections
    )


def external(
    data: DataDir, publication: Publication, followers: Followers, link: MqttLink
) -> ExternalBroker:
    """Return what looks after the broker of another process."""
    return ExternalBroker(
        publication=publication,
        followers=followers,
        files=MosquittoFiles.beside(data),
        connected=lambda: link.connected,
        clock=utc_now,
    )


def trust_anew(broker: Broker, tls: ssl.SSLContext, cas: DeviceCas) -> None:
    """Let the broker trust the device CAs as they are now."""
    tls.load_verify_locations(cadata=cas.pem)
    if isinstance(broker, ExternalBroker):
        broker.authorities_changed()


async def start(
    broker: Broker,
    registry: EnrolledDevices,
    config: ServerSettings,
    life: Lifetime,
    stack: AsyncExitStack,
) -> None:
    """Start serving devices, and cutting off those who are shut out; the stack stops it."""
    interval_s = config.revocation_check_s
    if isinstance(broker, ExternalBroker):
        watch = broker.run(interval_s=interval_s)
    else:
        await broker.start()
        stack.push_async_callback(broker.shutdown)
        watch = revocation.run(broker, registry, interval_s=interval_s)
    await stack.enter_async_context(life.background("revocation", watch))


def check_takes(ca: DeviceCa, data: DataDir, config: ServerSettings) -> None:
    """Accept the broker if it takes certificates of a device CA.

    Raises:
        UnavailableError: it refuses them, or cannot be reached.
        SetupError: the fleet CA cannot be read.
    """
    host, port = _address(config)
    probe.check_takes(
        ca,
        host=host,
        port=port,
        fleet_ca=data.online / "fleet-ca.crt",
        check_name=not _is_loopback(host),
        now=utc_now(),
    )


def _address(config: ServerSettings) -> tuple[str, int]:
    if config.broker_url is None:
        return _ANY_HOST.get(config.host, config.host), config.mqtt_port
    parts = urlsplit(config.broker_url)
    return parts.hostname or "", parts.port or config.mqtt_port


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

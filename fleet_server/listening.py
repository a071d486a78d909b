"""Opens the server's ports before anything else happens: a taken one stops a start early."""

import errno
import socket
from dataclasses import dataclass

from fleet_server.errors import SetupError
from fleet_server.settings import ServerSettings

_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Ports:
    """The listening sockets; ``mqtt`` of an embedded broker, None if there is another one."""

    https: socket.socket
    mqtt: socket.socket | None


def open_ports(config: ServerSettings) -> Ports:
    """Return the ports that the settings name.

    Raises:
        SetupError: one cannot be opened.
    """
    host = config.host
    https = open_port(host=host, port=config.https_port, key="https_port")
    if config.broker_url is not None:
        return Ports(https, None)
    return Ports(https, open_port(host=host, port=config.mqtt_port, key="mqtt_port"))


def open_port(*, host: str, port: int, key: str) -> socket.socket:
    """Return a listening socket.

    Args:
        host: address or name to listen on.
        port: TCP port.
        key: the setting that names the port, for the message.

    Raises:
        SetupError: the port is in use or may not be opened, or the host is not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SetupError(_explained(error, host, port, key)) from error
    listener.setblocking(False)  # noqa: FBT003 (the method takes it so)
    return listener


def _explained(error: OSError, host: str, port: int, key: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} (server.{key}) is in use on {host}: stop what uses it, or set another "
            f"port in server.toml or as SKERRY_SERVER_{key.upper()}"
        )
    if error.errno == errno.EACCES:
        return (
            f"port {port} (server.{key}) may not be opened by this user: set one above 1023 in "
            f"server.toml or as SKERRY_SERVER_{key.upper()}"
        )
    return (
        f"cannot listen on {host} (server.host): {error}; set an address of this machine, or "
        "0.0.0.0 for all of them"
    )

"""Mosquitto as the fleet's broker: its configuration, written from the settings and the topics.

Mosquitto lets devices in by their certificate, and the name in it is user and client id, so that
nobody can take another one's session. Who is shut out stands in the revocation list
(`fleet_server.broker.revocation_list`). Devices and the ingest service come by TLS; by the second
listener, a socket in a folder that only the server's user may enter, the server ends sessions
(`fleet_server.broker.sessions`): nothing may be published or heard there.

`fleet_server.broker.access` says the same to the embedded broker, and more finely: Mosquitto grants
each subscription and hands out what may be read, and it retains what a device asks it to.
"""

import pwd
from dataclasses import dataclass
from pathlib import Path

from fleet_protocol import topics
from fleet_protocol.messages import MAX_MESSAGE_BYTES
from fleet_protocol.topics import Topic
from fleet_server.broker.connection import MAX_KEEP_ALIVE_S
from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.devices.certificates import INGEST_NAME

_OVERHEAD_BYTES = 1024
"""What a packet has beside its payload: header, topic, properties."""

_ANY_DEVICE = "%u"
"""Stands for the user's name in a pattern; Mosquitto refuses users whose name is a wildcard."""

_CONFIGURATION = """\
# Made by `skerry server broker-config`, which overwrites it: change server.toml and make it anew.
per_listener_settings true
pid_file {pid}
{user}log_dest stderr
log_type error
log_type warning
log_type notice

persistence true
persistence_location {folder}/
autosave_interval 60
persistent_client_expiration 1d

max_packet_size {packet_bytes}
max_inflight_messages 100
max_queued_messages 10000
max_queued_bytes 67108864
max_keepalive {keep_alive_s}

# Devices and the ingest service.
listener {port} {host}
max_connections {connections}
tls_version tlsv1.2
capath {authorities}
certfile {shown}/tls.crt
keyfile {shown}/tls.pem
crlfile {revoked}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {access}

# The server's hand: only its user enters the folder, and the access list lets nobody do anything.
listener 0 {control}
allow_anonymous true
acl_file {access}
"""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where devices reach Mosquitto, and how many of them."""

    host: str
    port: int
    max_connections: int


def configuration(files: MosquittoFiles, listening: Listening) -> str:
    """Return the content of ``mosquitto.conf``."""
    owner = user_of(files.folder)
    return _CONFIGURATION.format(
        pid=files.pid,
        user=f"user {owner}\n" if owner else "",
        folder=files.folder,
        packet_bytes=MAX_MESSAGE_BYTES + _OVERHEAD_BYTES,
        keep_alive_s=MAX_KEEP_ALIVE_S,
        port=listening.port,
        host=listening.host,
        connections=listening.max_connections,
        shown=files.shown,
        authorities=files.authorities,
        revoked=files.revoked,
        access=files.access,
        control=files.control,
    )


def access_list() -> str:
    """Return the access list: one line for each channel of the contract and side."""
    lines = ["# Made by `skerry server broker-config` from the topics of the contract."]
    lines += [f"pattern write {Topic(_ANY_DEVICE, each)}" for each in sorted(topics.UPLINK)]
    lines += [f"pattern read {Topic(_ANY_DEVICE, each)}" for each in sorted(topics.DOWNLINK)]
    lines += ["", f"user {INGEST_NAME}"]
    lines += [f"topic read {topics.all_devices(each)}" for each in sorted(topics.UPLINK)]
    lines += [f"topic write {topics.all_devices(each)}" for each in sorted(topics.DOWNLINK)]
    return "\n".join([*lines, ""])


def user_of(folder: Path) -> str | None:
    """Return who owns a folder: Mosquitto, if root starts it, goes on as that user."""
    try:
        return pwd.getpwuid(folder.stat().st_uid).pw_name
    except KeyError:
        return None

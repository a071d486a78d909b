"""Prepares the folder of a Mosquitto on a machine of its own, and the units that run both there."""

import fcntl
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.broker import client_authorities, mosquitto
from fleet_server.broker.mosquitto import Listening
from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.data_dir import check_socket
from fleet_server.errors import SetupError
from fleet_server.releases import durable_files

FLEET_CA = "fleet-ca.crt"
TOKEN = "token"  # noqa: S105 (a file's name)
BROKER_UNIT, FOLLOWER_UNIT = "skerry-broker.service", "skerry-broker-follow.service"

_UNIT = """\
# Made by `skerry server broker-config`, which overwrites it.
[Unit]
Description={what}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User={user}
ExecStart={command}
Restart=always
RestartSec=2
LimitNOFILE=1048576
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folder}
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """A broker on a machine of its own.

    Attributes:
        folder: where all of it lies.
        server: the fleet server's address.
        device_ca: file with the device CAs to begin with; None keeps those that the folder has.
        fleet_ca: file with the CAs of the fleet server's certificate; None keeps the folder's.
    """

    folder: Path
    server: str
    device_ca: Path | None
    fleet_ca: Path | None
    listening: Listening


def configure(apart: Apart) -> list[str]:
    """Write all that Mosquitto and its follower need but token, key and certificate.

    Returns:
        What is still missing, as sentences.

    Raises:
        SetupError: a file cannot be read or is not what it should be, or the disk refuses.
    """
    files = MosquittoFiles.apart(apart.folder)
    check_socket(files.control)
    authorities = _certificates(apart.device_ca) if apart.device_ca else None
    fleet_cas = _certificates(apart.fleet_ca) if apart.fleet_ca else None
    try:
        for folder in (files.folder, files.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if authorities is not None:
            client_authorities.write(files.authorities, authorities)
        if fleet_cas is not None:
            pem = b"".join(each.public_bytes(Encoding.PEM) for each in fleet_cas)
            durable_files.write(files.folder / FLEET_CA, pem)
        durable_files.write(files.access, mosquitto.access_list().encode())
        content = mosquitto.configuration(files, apart.listening)
        durable_files.write(files.configuration, content.encode())
        for name, unit in _units(apart, files).items():
            durable_files.write(files.folder / name, unit.encode())
    except OSError as error:
        raise SetupError(f"cannot write below {files.folder}: {error}") from error
    return _missing(files)


def claim(folder: Path) -> int:
    """Claim a folder for this process until it ends; returns the locked descriptor.

    Raises:
        SetupError: there is no such folder, it belongs to another user, or another process has it.
    """
    try:
        owner = folder.stat().st_uid
        if owner != os.geteuid():
            raise SetupError(
                f"{folder} belongs to {mosquitto.user_of(folder) or owner}, as whom Mosquitto "
                "runs: what another user writes there it might not read. Run this as that user"
            )
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(
            f"cannot use {folder}: {error.strerror}; make it with `skerry server broker-config`"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise SetupError(f"another `skerry server broker-follow` looks after {folder}") from None
    return descriptor


def _units(apart: Apart, files: MosquittoFiles) -> dict[str, str]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    broker = f"{program or '/usr/sbin/mosquitto'} -c {files.configuration}"
    follower = (
        f"{sys.executable} -m skerry server broker-follow --folder {files.folder} "
        f"--server {apart.server}"
    )
    common = {"user": mosquitto.user_of(files.folder) or "root", "folder": files.folder}
    return {
        BROKER_UNIT: _UNIT.format(what="MQTT broker of a Skerry fleet", command=broker, **common),
        FOLLOWER_UNIT: _UNIT.format(
            what="Tells a Skerry fleet's MQTT broker whom to refuse",
            command=follower,
            **common,
        ),
    }


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read the certificates {path}: {error}") from error


def _missing(files: MosquittoFiles) -> list[str]:
    wanted = {
        files.authorities: "name the file of the device CA with --device-ca: online/device-ca.crt "
        "of the server",
        files.folder / FLEET_CA: "name the file of the fleet CA with --ca: public/fleet-ca.crt",
        files.folder / TOKEN: "put the token there, mode 600: `skerry server token --role broker "
        "--out FILE` on the server",
        files.certificate: "put the certificate there that Mosquitto shows to devices",
        files.shown / "tls.pem": "put its key there, mode 600",
    }
    return [f"{path} is missing: {what}" for path, what in wanted.items() if not path.exists()]

"""Finds out whether the broker takes certificates of an authority, by showing it one.

TLS 1.2 is asked for because there the server ends the handshake after it has checked the client's
certificate; with TLS 1.3 the client would not hear of a refusal until it reads.
"""

import socket
import ssl
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet_server.devices.certificates import DeviceCa
from fleet_server.errors import SetupError, UnavailableError

_TIMEOUT_S = 5.0


def check_takes(  # noqa: PLR0913 (what a connection has, by keyword)
    ca: DeviceCa, *, host: str, port: int, fleet_ca: Path, check_name: bool, now: datetime
) -> None:
    """Accept a broker that takes what an authority issues; nothing is sent to it but a handshake.

    Args:
        ca: the authority.
        host: the broker's.
        port: the broker's.
        fleet_ca: what the broker's own certificate has to come from.
        check_name: whether that certificate has to name the host.
        now: the present.

    Raises:
        UnavailableError: the broker refuses, or cannot be reached.
        SetupError: the fleet CA cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=fleet_ca)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"cannot read {fleet_ca}: {error}") from error
    context.check_hostname = check_name
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    _show(context, ca, now)
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return
    except OSError as error:
        raise UnavailableError(
            f"the broker at {host}:{port} does not take certificates of {ca.key_id[:16]} yet "
            f"({error}); for a Mosquitto that was configured by an older version, make its "
            "configuration anew with `skerry server broker-config` and restart it"
        ) from error


def _show(context: ssl.SSLContext, ca: DeviceCa, now: datetime) -> None:
    """Let a context show a certificate that was issued for this one handshake."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shown.pem"  # the folder is ours alone
        path.write_text(pem + ca.issue_ingest(key.public_key(), now=now).pem)
        context.load_cert_chain(path)

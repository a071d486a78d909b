"""The broker's side of mutual TLS."""

import ssl
from pathlib import Path

from fleet_server.errors import SetupError


def server_context(*, certificate: Path, key: Path, client_cas: str) -> ssl.SSLContext:
    """Return a context that lets in only holders of certificates of the device CAs (PEM).

    amqtt's own context merely asks for a certificate; this one ends the handshake without it.

    Raises:
        SetupError: a file cannot be read, or key and certificate do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cadata=client_cas)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"cannot use {certificate}, {key} or the device CAs for the broker: {error}"
        ) from error
    return context

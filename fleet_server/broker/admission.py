"""Lets a connection in or not, before the broker behind the gate hears of it.

The steps, each with the attack that it stops:

1. The TLS handshake ended with a certificate of the device CA (strangers).
2. The certificate names a device, by name and URI alike, or the ingest service (a certificate that
   the CA made for something else).
3. CONNECT comes soon, is bounded and well-formed (idle and oversized connections).
4. The client id is the certificate's name. amqtt replaces sessions by client id before it
   authenticates, so a device could otherwise throw out another one.
5. The will may be published by this identity. Nothing behind the gate checks a will.
6. The device is enrolled, not decommissioned, and this is its key (a revoked device).
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fleet_server.broker import access, packets, streams
from fleet_server.broker.access import Identity
from fleet_server.broker.packets import Connect
from fleet_server.broker.streams import Packet
from fleet_server.devices.certificates import read_peer
from fleet_server.errors import FleetError, MalformedError

CONNECT_TIMEOUT_S = 10.0

BAD_LEVEL, BAD_CLIENT_ID, UNAVAILABLE, NOT_AUTHORIZED = 1, 2, 3, 5
"""Return codes of CONNACK (MQTT 3.1.1, table 3.1)."""


class Registry(Protocol):
    """Who is enrolled."""

    async def refusal(self, device_id: str, public_key_sha256: str) -> str | None:
        """Say why a device with this key may not connect; None if it may."""

    async def refusals(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Say which of these devices, with these keys, may not connect, and why."""


class AdmissionRefusedError(FleetError):
    """A connection is not let in.

    Attributes:
        code: what CONNACK tells the client; None closes without a word.
        claimed: the identity, as far as it is known.
    """

    def __init__(self, message: str, *, code: int | None, claimed: Identity | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.claimed = claimed


@dataclass(frozen=True, slots=True)
class Admitted:
    """A connection that may go on to the broker.

    Attributes:
        public_key_sha256: fingerprint of the certificate's key.
        packet: its CONNECT, changed by `packets.without_session`.
    """

    identity: Identity
    public_key_sha256: str
    connect: Connect
    packet: Packet


async def admit(reader: StreamReader, writer: StreamWriter, registry: Registry) -> Admitted:
    """Take the steps of the module.

    Raises:
        AdmissionRefusedError: a step failed.
        TimeoutError: CONNECT did not come in time.
        EOFError: the connection ended.
        OSError: the connection broke.
        UnavailableError: the database failed.
    """
    certificate = _certificate(writer)
    if certificate is None:  # (1)
        raise AdmissionRefusedError("no client certificate", code=None)
    try:
        peer = read_peer(certificate)  # (2)
        identity = Identity(peer.device_id)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):  # (3)
            first, body = await streams.read_packet(
                reader,
                limit_bytes=packets.MAX_CONNECT_BYTES,
                timeout_s=CONNECT_TIMEOUT_S,
                expected_first=packets.Kind.CONNECT << 4,
            )
        connect = packets.parse_connect(body)
    except MalformedError as error:
        raise AdmissionRefusedError(str(error), code=None) from error
    _check(identity, connect)  # (4), (5)
    if peer.device_id is not None:  # (6)
        refusal = await registry.refusal(peer.device_id, peer.public_key_sha256)
        if refusal is not None:
            raise AdmissionRefusedError(refusal, code=NOT_AUTHORIZED, claimed=identity)
    return Admitted(
        identity, peer.public_key_sha256, connect, (first, packets.without_session(body))
    )


def _certificate(writer: StreamWriter) -> bytes | None:
    tls = writer.get_extra_info("ssl_object")
    certificate: bytes | None = tls.getpeercert(binary_form=True) if tls else None
    return certificate


def _check(identity: Identity, connect: Connect) -> None:
    if connect.level != packets.PROTOCOL_LEVEL:
        raise AdmissionRefusedError(
            f"protocol level {connect.level}; this broker speaks MQTT 3.1.1",
            code=BAD_LEVEL,
            claimed=identity,
        )
    if not access.may_use_client_id(identity, connect.client_id):
        raise AdmissionRefusedError(
            f"the client id {connect.client_id[:80]!r} is not the certificate's name",
            code=BAD_CLIENT_ID,
            claimed=identity,
        )
    will = connect.will
    if will is not None and not access.may_publish(identity, will.topic, retain=will.retain):
        raise AdmissionRefusedError(
            f"a will on {will.topic[:200]!r} is not allowed", code=NOT_AUTHORIZED, claimed=identity
        )

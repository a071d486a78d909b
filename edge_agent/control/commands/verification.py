"""Verification of commands: an envelope in, a trusted command out. No I/O.

`verify` takes these steps, each against an attack:

1. A threshold of the keys has signed the payload that the director's root names for assignments,
   as a command and as nothing else: DSSE signs the payload's type too (forgery by whoever holds
   broker, server or network; an assignment passed off as a command).
2. The root has not expired by the trusted clock (freezing a device on a key that was replaced).
3. It is for this device (replaying another device's command).
4. It does not outlive what the signer may sign (a command that lies in wait).

Whether it was taken before and whether it has expired is decided in the transactions that take and
begin it.
"""

from datetime import datetime

import msgspec
from securesystemslib.dsse import Envelope as SignedEnvelope
from securesystemslib.exceptions import FormatError, VerificationError
from tuf.api.metadata import Root, Targets

from edge_agent.control.trust import TrustError
from fleet_protocol import commands
from fleet_protocol.commands import Command, Envelope
from fleet_protocol.errors import ProtocolError


def verify(envelope: Envelope, *, root: Root, device_id: str, now: datetime) -> Command:
    """Return the command in an envelope.

    Args:
        envelope: as received.
        root: the director's newest root.
        device_id: whom it must be for.
        now: the trusted time.

    Raises:
        TrustError: it is refused.
    """
    payload = _verified_payload(envelope, root)  # (1)
    if root.is_expired(now):  # (2)
        raise TrustError(f"the director's root expired on {root.expires:%Y-%m-%d %H:%M} UTC")
    try:
        command = commands.decode_command(payload)
    except ProtocolError as error:
        raise TrustError(str(error)) from error
    if command.device_id != device_id:  # (3)
        raise TrustError(f"the command is for {command.device_id}, this device is {device_id}")
    if command.expires_ms - command.issued_ms > commands.MAX_LIFETIME_S * 1000:  # (4)
        raise TrustError(f"command {command.id} would live for more than a day")
    return command


def _verified_payload(envelope: Envelope, root: Root) -> bytes:
    role = root.roles[Targets.type]
    keys = [root.keys[keyid] for keyid in role.keyids]
    try:
        signed = SignedEnvelope.from_dict(msgspec.to_builtins(envelope))
        signed.verify(keys, role.threshold)
    except (VerificationError, FormatError, ValueError, KeyError) as error:
        raise TrustError(f"a command is not validly signed: {error}") from error
    return signed.payload

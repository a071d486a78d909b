"""What the signer is asked about commands; it travels in the frames of `assignments.signing`."""

from typing import Annotated

import msgspec

from fleet_protocol.command_answers import CommandId
from fleet_protocol.commands import Action, Sequence
from fleet_protocol.messages import UnixMs
from fleet_protocol.names import DeviceId


class SignCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command to sign.

    Attributes:
        sequence: must be higher than any that was signed for the device.
        claim: the token with which the device enrolled, signed by the offline claim key.
    """

    id: CommandId
    device_id: DeviceId
    sequence: Sequence
    issued_ms: UnixMs
    expires_ms: UnixMs
    action: Action
    claim: Annotated[str, msgspec.Meta(max_length=8192)]

"""What the signer is asked and answers, and how that travels over its socket.

A frame is a length (four bytes, big-endian) and JSON. Requests come in batches, since each batch
costs the signer one synchronous write to disk.
"""

import asyncio
import struct
from typing import Annotated, TypeVar

import msgspec

from fleet_protocol.delivery import Terms
from fleet_protocol.names import DeviceId, Family, Sha256
from fleet_server.commands.signing import SignCommand
from fleet_server.errors import MalformedError

MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_BATCH = 200
MAX_ENTRIES = 256
"""Families that one device runs at most."""

_LENGTH = struct.Struct(">I")


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest of one release."""

    path: Annotated[str, msgspec.Meta(max_length=300)]
    length: Annotated[int, msgspec.Meta(ge=1, le=2**40)]
    sha256: Sha256


class SignRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One assignment to sign.

    Attributes:
        version: must be higher than any that was signed for the device.
        expires_s: seconds since 1970.
        targets: the complete list, one manifest for each family.
        run_nothing: true exactly when the list is empty.
        terms: of delivery, for families of the list that have any.
        removed: families that the list leaves out on purpose, which it otherwise may not.
        claim: the token with which the device enrolled, signed by the offline claim key; the signer
            needs it for a device that it does not know yet.
    """

    device_id: DeviceId
    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    expires_s: Annotated[int, msgspec.Meta(ge=0, le=2**40)]
    targets: Annotated[list[Target], msgspec.Meta(max_length=MAX_ENTRIES)]
    run_nothing: bool = False
    terms: dict[Family, Terms] = {}
    removed: Annotated[list[Family], msgspec.Meta(max_length=MAX_ENTRIES)] = []
    claim: Annotated[str, msgspec.Meta(max_length=8192)] = ""


class SignBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All are signed or none is; an empty batch only asks which keys the signer holds.

    Attributes:
        requests: assignments to sign.
        commands: or commands, never both in one batch.
    """

    requests: Annotated[list[SignRequest], msgspec.Meta(max_length=MAX_BATCH)]
    commands: Annotated[list[SignCommand], msgspec.Meta(max_length=MAX_BATCH)] = []

    def __post_init__(self) -> None:
        """Refuse a batch of both, of which a half could fail."""
        if self.requests and self.commands:
            raise ValueError("assignments and commands are signed in batches of their own")


class SignAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Documents in the order of the requests, or why none was signed.

    Attributes:
        documents: as JSON text; TUF targets metadata for an assignment, an envelope for a command.
        refusal: a sentence; empty when the documents are there.
        unavailable: why it cannot sign anything now, such as a full disk; else empty.
        highest: on a version (or a sequence of a command) that is not higher: the highest signed
            one of the devices asked for.
        keyids: of the keys that the signer holds, in answer to an empty batch.
    """

    documents: list[str] = []
    refusal: str = ""
    unavailable: str = ""
    highest: dict[str, int] = {}
    keyids: list[str] = []


Frame = TypeVar("Frame", bound=msgspec.Struct)


async def send(writer: asyncio.StreamWriter, frame: msgspec.Struct) -> None:
    """Write a frame.

    Raises:
        OSError: the other side is gone.
    """
    payload = msgspec.json.encode(frame)
    writer.write(_LENGTH.pack(len(payload)) + payload)
    await writer.drain()


async def receive(reader: asyncio.StreamReader, kind: type[Frame]) -> Frame:
    """Read a frame.

    Raises:
        MalformedError: too large, or not what was expected.
        EOFError: the other side closed (`asyncio.IncompleteReadError` is one).
        OSError: the connection broke.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise MalformedError(f"a frame of {length} bytes, at most {MAX_FRAME_BYTES} are read")
    payload = await reader.readexactly(length)
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"not a {kind.__name__}: {error}") from error

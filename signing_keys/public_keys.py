"""The public half of a key as a file, which its holder hands to whoever drafts metadata."""

from typing import Annotated, Literal

import msgspec
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import Key

from signing_keys.errors import SigningKeyError

MAX_BYTES = 64 * 1024


class PublicKeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public key as update metadata writes it."""

    schema: Literal[1] = 1
    keyid: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    key: dict[str, object]


def encode(key: Key) -> bytes:
    """Return the file of a public key."""
    made = PublicKeyFile(keyid=key.keyid, key=key.to_dict())
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def decode(payload: bytes) -> Key:
    """Read the file of a public key.

    Raises:
        SigningKeyError: it is none.
    """
    try:
        if len(payload) > MAX_BYTES:
            raise SigningKeyError(f"a public key file has at most {MAX_BYTES} bytes")
        read = msgspec.json.decode(payload, type=PublicKeyFile)
        return Key.from_dict(read.keyid, dict(read.key))
    except (
        msgspec.MsgspecError,
        UnicodeDecodeError,
        FormatError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise SigningKeyError(
            f"this is no public key of `skerry provision ceremony key`: {error}"
        ) from error

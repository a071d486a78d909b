"""The claim bundle: the file with which a new device introduces itself to its fleet.

It is made offline by the holder of the claim key and carried to the device by hand. It holds a
one-time token (a JWT, RFC 7519, signed with ES256) and the roots of trust, so that the first
contact with the server already rests on keys that the server does not hold.
"""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.errors import ProtocolError
from fleet_protocol.names import DeviceId, Family
from fleet_protocol.unreadable import problem

TOKEN_ISSUER = "skerry-provisioning"  # noqa: S105 (a name, not a secret)
"""``iss`` of a claim token; ``sub`` is the device id, ``jti`` makes it usable once.

Optional: ``labels``, which the device gets at the server, and ``replaces``: the claim may give a
device that is enrolled already a new key and certificate.
"""

DEVICE_AUDIENCE = "skerry-fleet-server"
"""``aud`` of the short-lived JWT (``sub``: device id) that a device signs for HTTPS requests."""

DEVICE_TOKEN_LIFETIME_S = 120

MAX_CLAIM_BYTES = 256 * 1024

Floor = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Pem = Annotated[str, msgspec.Meta(max_length=65536)]
MetadataText = Annotated[str, msgspec.Meta(min_length=2, max_length=65536)]


class ClaimBundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `skerry provision claim` writes and `skerry agent enroll` reads. It is a secret.

    Attributes:
        device_id: the name that the device will have.
        token: one-time token; the server accepts it until ``expires_at_ms``, for one key.
        fleet_ca_pem: the certificate authority behind the server's HTTPS and MQTT certificates.
        release_root: TUF root metadata (JSON text) of the release repository.
        director_root: TUF root metadata (JSON text) whose targets key signs assignments.
        floors: lowest ``security_counter`` that the device may install, by family.
    """

    schema: Literal[1] = 1
    device_id: DeviceId
    token: Annotated[str, msgspec.Meta(max_length=8192)]
    expires_at_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    fleet_ca_pem: Pem
    release_root: MetadataText
    director_root: MetadataText
    floors: dict[Family, Floor] = {}


def decode(payload: bytes) -> ClaimBundle:
    """Read a claim bundle.

    Raises:
        ProtocolError: too large, not JSON, or a field missing, unknown or malformed.
    """
    if len(payload) > MAX_CLAIM_BYTES:
        raise ProtocolError(
            f"the claim has {len(payload)} bytes, at most {MAX_CLAIM_BYTES} are read"
        )
    try:
        return msgspec.json.decode(payload, type=ClaimBundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a claim bundle: {problem(error, ClaimBundle)}") from error


def encode(bundle: ClaimBundle) -> bytes:
    """Return the bundle as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(bundle), indent=1)

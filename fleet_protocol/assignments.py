"""The assignment: the signed, complete list of what one device shall run.

It travels as TUF targets metadata (TUF specification 1.0.31, section 4.5), so that signature
format, version, expiry, length and hashes are The Update Framework's and not ours. What TUF has
no field for is bound to it by signed extra fields: the binding, read and written here, and the
terms of `fleet_protocol.delivery`. The root of the director repository, which every device holds
from its first boot, names the key.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from fleet_protocol.errors import ProtocolError
from fleet_protocol.names import DeviceId
from fleet_protocol.unreadable import problem

POLL_ROUTE = "/device/v1/assignment"
"""Where a device asks for its newest assignment without MQTT; `etag` goes into If-None-Match."""

MAX_ASSIGNMENT_BYTES = 256 * 1024
FIELD = "x-skerry-assignment"
"""Name of the extra field in the signed part of the metadata."""


class Binding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom the assignment is for, and that nothing was left out of it.

    Attributes:
        device_id: the only device that may follow it.
        run_nothing: must be true exactly when the list of targets is empty, so that an emptied
            list is never taken for an order to stop everything.
    """

    device_id: DeviceId
    complete: Literal[True] = True
    run_nothing: bool = False


def binding_of(extra_fields: Mapping[str, object], *, target_count: int) -> Binding:
    """Read the binding from the unrecognized fields of a signed targets metadata.

    Raises:
        ProtocolError: it is absent, malformed, or contradicts the number of targets.
    """
    try:
        binding = msgspec.convert(extra_fields.get(FIELD), Binding)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"not an assignment: {FIELD}: {problem(error, Binding)}") from error
    if binding.run_nothing != (target_count == 0):
        raise ProtocolError(
            f"an assignment with {target_count} targets says run_nothing={binding.run_nothing}"
        )
    return binding


def extra_fields(binding: Binding) -> dict[str, object]:
    """Return the unrecognized fields to sign for a binding."""
    return {FIELD: msgspec.to_builtins(binding)}


def etag(document_sha256: str) -> str:
    """Return the entity tag (RFC 9110, section 8.8.3) of an assignment document."""
    return f'"{document_sha256}"'

"""What a publisher says in a family's signed list beside the releases: which ones are withdrawn.

It stands in an extra field of the TUF targets metadata, under the publisher's signature. A yanked
version is no longer listed and can never be listed again. The security floor forbids every release
of a lower ``security_counter``, listed or not, from the moment at which a device sees it.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from fleet_protocol.claims import Floor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.names import Version
from fleet_protocol.unreadable import problem

FIELD = "x-skerry-withdrawals"
"""Name of the extra field in the signed part of a family's list."""

MAX_YANKED = 10_000
Reason = Annotated[str, msgspec.Meta(max_length=300)]


class Withdrawals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is withdrawn of one family.

    Attributes:
        yanked: version to reason.
        security_floor: lowest ``security_counter`` that a device may install from now on.
    """

    yanked: Annotated[dict[Version, Reason], msgspec.Meta(max_length=MAX_YANKED)] = {}
    security_floor: Floor = 0


NOTHING = Withdrawals()


def of(extra_fields: Mapping[str, object]) -> Withdrawals:
    """Read the withdrawals from the unrecognized fields of a family's list.

    Raises:
        ProtocolError: they are malformed.
    """
    try:
        return msgspec.convert(extra_fields.get(FIELD, {}), Withdrawals)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{FIELD}: {problem(error, Withdrawals)}") from error


def extra_fields(said: Withdrawals) -> dict[str, object]:
    """Return the unrecognized fields to sign."""
    return {FIELD: msgspec.to_builtins(said)} if said != NOTHING else {}

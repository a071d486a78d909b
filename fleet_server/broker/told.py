"""What a broker on another machine is told over HTTPS; signed, so that it need not be believed."""

import msgspec

from fleet_protocol.names import DeviceId

ROUTE = "/api/v1/trust/broker"

MAX_TOLD_BYTES = 64 * 1024 * 1024
"""Some 60 bytes for each certificate that is refused, for each authority."""

MAX_AUTHORITIES = 16


class Authority(msgspec.Struct, frozen=True):
    """A device CA, and its revocation list.

    Attributes:
        certificate_pem: of the authority itself.
        list_pem: signed by it: which valid certificates are refused.
        link_pem: proves that it follows an earlier one (RFC 4210, 4.4.2); empty for the first one.
    """

    certificate_pem: str
    list_pem: str
    link_pem: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """All that a broker has to know.

    Attributes:
        authorities: whose certificates are taken, the oldest first.
        shut_out: devices that may still have a session and must have none.
    """

    authorities: list[Authority]
    shut_out: list[DeviceId]

"""To which addresses the server sends notices.

Who makes a webhook chooses an address that this machine then calls, so it must not reach what only
this machine can.

(1) Only HTTPS, so that nobody reads notices on the way, unless a setting allows HTTP.
(2) No user or password in the URL: it would stand in lists and logs.
(3) A name is resolved for each attempt and every one of its addresses has to be public, unless a
    setting allows others. The connection is made to the address that was looked at, so a name that
    changes its answer in between (DNS rebinding) gains nothing.
(4) Redirects are not followed, see `fleet_server.alerts.sender`.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from fleet_server.errors import FleetError, RefusedError

MAX_URL = 1000
_MAX_ADDRESSES = 4
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class TargetError(FleetError):
    """A webhook cannot be reached where its URL says; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPolicy:
    """What the settings allow.

    Attributes:
        plain_http: URLs without TLS.
        private_addresses: those that are not of the public internet, such as 10.0.0.0/8.
    """

    plain_http: bool = False
    private_addresses: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL, taken apart.

    Attributes:
        authority: host and port as the receiver sees them.
        path: with the query.
    """

    scheme: str
    host: str
    port: int
    authority: str
    path: str


def checked(url: str, policy: TargetPolicy) -> Target:
    """Accept a URL to which notices may go, as far as that can be said without resolving names.

    Raises:
        RefusedError: it is malformed or not allowed; the message says what to do.
    """
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedError(f"url: use at most {MAX_URL} printable ASCII characters, no spaces")
    parts = _parts(url)
    schemes = ("https", "http") if policy.plain_http else ("https",)
    if parts.scheme not in schemes or not parts.hostname:  # (1)
        raise RefusedError(f"url: use {schemes[0]}://HOST/PATH; other schemes are not allowed here")
    if parts.username is not None or parts.password is not None:  # (2)
        raise RefusedError("url: leave user and password out; notices are signed instead")
    if parts.fragment:
        raise RefusedError("url: leave out what follows `#`")
    address = _literal(parts.hostname)
    if address is not None and not policy.private_addresses and not _public(address):  # (3)
        raise RefusedError(
            f"url: {parts.hostname} is not an address of the public internet; the setting "
            "webhook_private_addresses allows it"
        )
    return Target(
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port or (443 if parts.scheme == "https" else 80),
        authority=parts.netloc,
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


async def resolved(target: Target, policy: TargetPolicy) -> list[str]:
    """Return the addresses to which an attempt may connect, the preferred one first.

    Raises:
        TargetError: the name does not resolve, or to an address that is not allowed.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            target.host, target.port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise TargetError(f"{target.host} does not resolve: {error}") from error
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    refused = [
        each for each in addresses if not _public(ipaddress.ip_address(each.partition("%")[0]))
    ]
    if not addresses or (refused and not policy.private_addresses):  # (3)
        raise TargetError(
            f"{target.host} resolves to {', '.join(refused) or 'nothing'}, which is not an address "
            "of the public internet; the setting webhook_private_addresses allows it"
        )
    return addresses[:_MAX_ADDRESSES]


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises if it is no port)
    except ValueError as error:
        raise RefusedError(f"url: {error}") from error
    return parts


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Say whether an address is of the public internet, and so is the IPv4 one inside of it."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _public(inner)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast

"""Limits how often a login may be tried: for each account and for each network address.

Attempts are counted before the password is looked at, in the database, so that neither parallel
attempts nor several servers nor a restart give more of them. What a stranger can do to an account
by failing on purpose ends after `WINDOW`; sessions and tokens go on meanwhile.
"""

import ipaddress
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.accounts.tables import LoginAttempts
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.errors import ThrottledError

WINDOW = timedelta(minutes=15)
MAX_PER_ACCOUNT = 10
MAX_PER_ADDRESS = 100
_IPV6_PREFIX = 64
"""Who has one IPv6 address has all of its network's."""

_WINDOW_MS = int(WINDOW.total_seconds() * 1000)


class LoginThrottle:
    """The attempts in one database."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def count(self, *, account: str | None, address: str) -> None:
        """Count an attempt, of an address alone if it is not known yet for which account.

        Raises:
            ThrottledError: there were too many.
            UnavailableError: the database failed.
        """
        limits = {f"address {network(address)}": MAX_PER_ADDRESS}
        if account is not None:
            limits[f"account {account[:100]}"] = MAX_PER_ACCOUNT
        now_ms = unix_ms(self._clock())
        waits = []
        async with self._database.writing() as session:
            for subject, most in sorted(limits.items()):
                row = await _attempts(session, subject, now_ms)
                row.count += 1
                if row.count > most:
                    waits.append(row.since_ms + _WINDOW_MS - now_ms)
        if waits:
            raise ThrottledError(
                "too many attempts to log in; wait and try again",
                retry_after_s=max(waits) // 1000 + 1,
            )

    async def succeeded(self, *, account: str) -> None:
        """Forget the failures of an account whose owner came in.

        Raises:
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            await session.execute(
                delete(LoginAttempts).where(
                    (LoginAttempts.subject == f"account {account[:100]}")
                    | (LoginAttempts.since_ms < now_ms - _WINDOW_MS)
                )
            )


def network(address: str) -> str:
    """Return what of a client's address is counted as one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))


async def _attempts(session: AsyncSession, subject: str, now_ms: int) -> LoginAttempts:
    await take_turn(session, f"login of {subject}")
    row = await session.get(LoginAttempts, subject)
    if row is None:
        row = LoginAttempts(subject=subject, since_ms=now_ms, count=0)
        session.add(row)
    elif row.since_ms < now_ms - _WINDOW_MS:
        row.since_ms, row.count = now_ms, 0
    return row

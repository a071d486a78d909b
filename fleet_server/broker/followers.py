"""Who keeps brokers on other machines told, and when each of them asked last.

A follower is known by the name of its token, and for as long as there is a token of that name: an
expired one makes it dead, not forgotten.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from fleet_server import tenancy
from fleet_server.accounts.tables import ApiToken
from fleet_server.broker.tables import BrokerFollower
from fleet_server.clock import Clock, from_unix_ms, unix_ms
from fleet_server.database import Database


@dataclass(frozen=True, slots=True)
class Follower:
    """One of them.

    Attributes:
        fetched: when it asked last.
        behind_since: since when it has lacked what it was told; None if it has all of it.
        token_expires: when its newest token ends.
    """

    name: str
    fetched: datetime
    behind_since: datetime | None
    token_expires: datetime


class Followers:
    """The followers of one fleet."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def fetched(self, name: str, *, has_it: bool) -> None:
        """Note that one asked, and whether its broker has what holds now.

        Raises:
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            row = await session.get(BrokerFollower, name, with_for_update=True)
            if row is None:
                row = BrokerFollower(name=name)
                session.add(row)
            row.fetched_ms = now_ms
            row.behind_ms = None if has_it else row.behind_ms or now_ms

    async def asked_since(self, moment: datetime) -> bool:
        """Say whether one asked after a moment.

        Raises:
            UnavailableError: the database failed.
        """
        query = select(func.max(BrokerFollower.fetched_ms))
        async with self._database.reading() as session:
            return (await session.scalar(query) or 0) > unix_ms(moment)

    async def all(self) -> list[Follower]:
        """Return those that have a token, by name.

        Raises:
            UnavailableError: the database failed.
        """
        query = (
            select(BrokerFollower, func.max(ApiToken.expires_ms))
            .join(ApiToken, ApiToken.name == BrokerFollower.name)
            .where(ApiToken.tenant == tenancy.DEFAULT)
            .group_by(BrokerFollower.name)
            .order_by(BrokerFollower.name)
        )
        async with self._database.reading() as session:
            return [
                Follower(
                    row.name,
                    from_unix_ms(row.fetched_ms),
                    from_unix_ms(row.behind_ms) if row.behind_ms is not None else None,
                    from_unix_ms(expires_ms),
                )
                for row, expires_ms in await session.execute(query)
            ]

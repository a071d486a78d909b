"""Webhooks: where notices go. A secret is made here, shown once, and never again."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import tenancy
from fleet_server.alerts import notices, targets
from fleet_server.alerts.announcing import Announcements
from fleet_server.alerts.book import check_name
from fleet_server.alerts.deliveries import Deliveries
from fleet_server.alerts.rules import Severity
from fleet_server.alerts.tables import AlertDelivery, AlertWebhook
from fleet_server.alerts.targets import TargetPolicy
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.errors import ConflictError, NotFoundError, RefusedError

MAX_WEBHOOKS = 20
"""Of a tenant."""

ROTATION_MS = 86_400_000
"""How long notices are signed with the secret before the present one as well."""


class Webhooks:
    """The webhooks of one database."""

    def __init__(self, *, database: Database, clock: Clock, policy: TargetPolicy) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy
        self._deliveries = Deliveries(database=database, clock=clock)

    async def all(self) -> Sequence[AlertWebhook]:
        """Return the webhooks in the order of their names.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            query = select(AlertWebhook).order_by(AlertWebhook.name)
            return list(await session.scalars(query))

    async def get(self, name: str) -> AlertWebhook:
        """Return one webhook.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            return await _webhook(session, name)

    async def create(self, name: str, *, url: str, min_severity: Severity) -> AlertWebhook:
        """Make a webhook with a new secret.

        Raises:
            RefusedError: name or URL are malformed or not allowed, or there are too many.
            ConflictError: there is one of that name.
            UnavailableError: the database failed.
        """
        check_name(name, "a webhook")
        targets.checked(url, self._policy)
        row = AlertWebhook(
            tenant=tenancy.current(),
            name=name,
            url=url,
            secret=notices.new_secret(),
            min_severity=min_severity.value,
            created_ms=unix_ms(self._clock()),
        )
        async with self._database.writing() as session:
            await take_turn(session, f"webhooks of {row.tenant}")
            if await session.get(AlertWebhook, (row.tenant, name)) is not None:
                raise ConflictError(f"there is a webhook {name}; remove it or name this otherwise")
            if (await session.scalar(select(func.count()).select_from(AlertWebhook)) or 0) >= (
                MAX_WEBHOOKS
            ):
                raise RefusedError(f"a tenant may have {MAX_WEBHOOKS} webhooks; remove one")
            session.add(row)
        return row

    async def delete(self, name: str) -> None:
        """Remove a webhook; what waits for it is given up.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            await session.delete(await _webhook(session, name, lock=True))

    async def rotate(self, name: str) -> AlertWebhook:
        """Give a webhook a new secret; for a day notices are signed with both.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            row = await _webhook(session, name, lock=True)
            row.previous_secret = row.secret
            row.previous_until_ms = unix_ms(self._clock()) + ROTATION_MS
            row.secret = notices.new_secret()
        return row

    async def enable(self, name: str) -> AlertWebhook:
        """Send notices again to a webhook that said that it was gone.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            row = await _webhook(session, name, lock=True)
            row.disabled_ms = None
        return row

    async def test(self, name: str) -> str:
        """Queue a notice that says nothing; returns the id of its event.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            row = await _webhook(session, name)
            announcements = Announcements(session, now_ms=unix_ms(self._clock()))
            return announcements.test(row.tenant, row.name)

    async def deliveries(
        self, name: str, *, after: int | None, limit: int
    ) -> Sequence[AlertDelivery]:
        """Return the notices of a webhook, the newest first.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        await self.get(name)
        return await self._deliveries.page(name, after=after, limit=limit)


async def _webhook(session: AsyncSession, name: str, *, lock: bool = False) -> AlertWebhook:
    row = await session.get(AlertWebhook, (tenancy.current(), name), with_for_update=lock)
    if row is None:
        raise NotFoundError(f"there is no webhook {name[:80]!r}")
    return row

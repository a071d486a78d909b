"""The durable queue of notices: written with the change that they tell of, sent at least once.

An attempt is leased: whoever takes it moves its next time beyond the end of the attempt, in a
transaction of its own. If the process dies before it has noted how the attempt ended, the lease
runs out and another one sends the same notice with the same id. Only the holder of the newest
lease notes an outcome, known by the number of attempts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import keyset
from fleet_server.alerts.sender import TIMEOUT_S, Letter, Outcome
from fleet_server.alerts.tables import AlertDelivery, AlertWebhook
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.keyset import Order

LEASE_MS = round(4 * TIMEOUT_S * 1000)
AT_ONCE = 4
"""Notices that one webhook gets side by side."""

MAX_AGE_MS = 3 * 86_400_000
"""A notice that could not be delivered for so long is given up."""

KEPT_MS = 14 * 86_400_000
"""How long what is over can be looked at."""

MAX_WAITING = 10_000
"""Notices that wait for one webhook; more are dropped, and the log says so."""

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 3600.0
_MAX_WEBHOOKS = 50
_PURGED_AT_ONCE = 5000

WebhookKey = tuple[str, str]
"""Tenant and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """An attempt that is to be made now."""

    id: int
    attempts: int
    letter: Letter


def pause_s(attempts: int, jitter: float) -> float:
    """Return how long to wait after so many attempts: doubling, and spread over half of it.

    Args:
        attempts: that were made, from 1.
        jitter: a random number from 0 to 1.
    """
    longest = min(_FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 32), _LONGEST_PAUSE_S)
    return longest * (0.5 + jitter / 2)


class Deliveries:
    """The queue of one database."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def due(self) -> list[WebhookKey]:
        """Return webhooks that have notices to be sent now.

        Raises:
            UnavailableError: the database failed.
        """
        query = (
            select(AlertDelivery.tenant, AlertDelivery.webhook)
            .where(AlertDelivery.due_ms <= unix_ms(self._clock()))
            .distinct()
            .limit(_MAX_WEBHOOKS)
        )
        async with self._database.reading() as session:
            return [(tenant, name) for tenant, name in await session.execute(query)]

    async def lease(self, key: WebhookKey) -> list[Leased]:
        """Take the oldest notices of a webhook that are due, for one attempt each.

        Raises:
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        query = (
            select(AlertDelivery)
            .where(
                AlertDelivery.tenant == key[0],
                AlertDelivery.webhook == key[1],
                AlertDelivery.due_ms <= now_ms,
            )
            .order_by(AlertDelivery.id)
            .limit(AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        async with self._database.writing() as session:
            rows = list(await session.scalars(query))
            webhook = await session.get(AlertWebhook, key)
            if webhook is None or webhook.disabled_ms is not None:
                for row in rows:
                    row.due_ms, row.problem = None, "the webhook was removed or switched off"
                return []
            for row in rows:
                row.attempts += 1
                row.due_ms = now_ms + LEASE_MS
            return [_leased(row, webhook, now_ms) for row in rows]

    async def note(self, key: WebhookKey, leased: Leased, outcome: Outcome) -> None:
        """Store how an attempt ended.

        Raises:
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            row = await session.get(AlertDelivery, leased.id, with_for_update=True)
            if row is None or row.attempts != leased.attempts or row.due_ms is None:
                return
            row.problem = outcome.problem
            if not outcome.problem:
                row.due_ms, row.delivered_ms = None, now_ms
            elif outcome.gone or now_ms - row.created_ms >= MAX_AGE_MS:
                row.due_ms = None
            else:
                wait_s = pause_s(leased.attempts, random.random())  # noqa: S311 (spreads load)
                row.due_ms = now_ms + round(max(wait_s, outcome.retry_after_s) * 1000)
            if outcome.gone:
                await session.execute(
                    update(AlertWebhook)
                    .where(AlertWebhook.tenant == key[0], AlertWebhook.name == key[1])
                    .values(disabled_ms=now_ms)
                )

    async def page(self, webhook: str, *, after: int | None, limit: int) -> Sequence[AlertDelivery]:
        """Return notices of a webhook of this tenant, the newest first.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(
            select(AlertDelivery).where(AlertDelivery.webhook == webhook),
            AlertDelivery.id,
            after=after,
            limit=limit,
            order=Order.DESCENDING,
        )
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def forget_old(self) -> None:
        """Remove what has been over for long.

        Raises:
            UnavailableError: the database failed.
        """
        old = (
            select(AlertDelivery.id)
            .where(
                AlertDelivery.due_ms.is_(None),
                AlertDelivery.created_ms < unix_ms(self._clock()) - KEPT_MS,
            )
            .limit(_PURGED_AT_ONCE)
        )
        async with self._database.writing() as session:
            await session.execute(delete(AlertDelivery).where(AlertDelivery.id.in_(old)))


async def waiting(session: AsyncSession, key: WebhookKey) -> int:
    """Return how many notices wait for a webhook."""
    query = select(func.count()).where(
        AlertDelivery.tenant == key[0],
        AlertDelivery.webhook == key[1],
        AlertDelivery.due_ms.is_not(None),
    )
    return await session.scalar(query) or 0


def _leased(row: AlertDelivery, webhook: AlertWebhook, now_ms: int) -> Leased:
    whsec = [webhook.secret]
    if webhook.previous_secret is not None and now_ms < (webhook.previous_until_ms or 0):
        whsec.append(webhook.previous_secret)
    letter = Letter(url=webhook.url, event_id=row.event_id, body=row.body, whsec=whsec)
    return Leased(id=row.id, attempts=row.attempts, letter=letter)

"""Puts notices on the queue, in the transaction of the change that they tell of.

Of alerts here; what else has something to tell, such as rollouts, brings its own words to `tell`.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.alerts import notices
from fleet_server.alerts.deliveries import MAX_WAITING, WebhookKey, waiting
from fleet_server.alerts.stored import Receiver
from fleet_server.alerts.tables import Alert, AlertDelivery

logger = logging.getLogger(__name__)


class Announcements:
    """The notices of one transaction."""

    def __init__(self, session: AsyncSession, *, now_ms: int) -> None:
        self._session = session
        self._now_ms = now_ms
        self._waiting: Counter[WebhookKey] = Counter()
        self._counted: set[WebhookKey] = set()

    async def fired(self, alert: Alert, receivers: Sequence[Receiver]) -> None:
        """Tell receivers that an alert fires."""
        await self.tell(notices.FIRED, f"devices/{alert.device_id}", _data(alert), receivers)

    async def resolved(self, alert: Alert, receivers: Sequence[Receiver]) -> None:
        """Tell receivers that an alert is over."""
        await self.tell(notices.RESOLVED, f"devices/{alert.device_id}", _data(alert), receivers)

    def test(self, tenant: str, webhook: str) -> str:
        """Send a notice that says nothing to one webhook; returns the id of its event."""
        event_id = notices.new_event_id()
        body = notices.document(
            event_id=event_id,
            kind=notices.TEST,
            tenant=tenant,
            subject=f"webhooks/{webhook}",
            at_ms=self._now_ms,
            data={"detail": "Somebody asked for this notice, to see whether it arrives."},
        )
        self._queue((tenant, webhook), event_id, notices.TEST, body)
        return event_id

    async def tell(
        self, kind: str, subject: str, data: Mapping[str, object], receivers: Sequence[Receiver]
    ) -> None:
        """Tell receivers, all of one tenant, what has happened.

        Args:
            kind: type of the event.
            subject: what it is about, such as ``rollouts/7``.
            data: of the event.
            receivers: whom to tell.
        """
        if not receivers:
            return
        event_id = notices.new_event_id()
        body = notices.document(
            event_id=event_id,
            kind=kind,
            tenant=receivers[0].tenant,
            subject=subject,
            at_ms=self._now_ms,
            data=data,
        )
        for receiver in receivers:
            key = (receiver.tenant, receiver.name)
            if await self._has_room(key):
                self._queue(key, event_id, kind, body)

    async def _has_room(self, key: WebhookKey) -> bool:
        if key not in self._counted:
            self._counted.add(key)
            self._waiting[key] += await waiting(self._session, key)
        if self._waiting[key] < MAX_WAITING:
            return True
        logger.error("notice_dropped", extra={"tenant": key[0], "webhook": key[1]})
        return False

    def _queue(self, key: WebhookKey, event_id: str, kind: str, body: str) -> None:
        self._waiting[key] += 1
        self._session.add(
            AlertDelivery(
                tenant=key[0],
                webhook=key[1],
                event_id=event_id,
                kind=kind,
                body=body,
                created_ms=self._now_ms,
                due_ms=self._now_ms,
                attempts=0,
                problem="",
            )
        )


def _data(alert: Alert) -> dict[str, object]:
    return {
        "alert": alert.id,
        "rule": alert.rule,
        "severity": alert.severity,
        "device": alert.device_id,
        "family": alert.family or None,
        "detail": alert.detail,
        "fired_ms": alert.fired_ms,
        "resolved_ms": alert.resolved_ms,
    }

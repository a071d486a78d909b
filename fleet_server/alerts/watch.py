"""Looks at all devices, page by page, and writes what follows in one transaction a page.

Several servers may do so. A row says when the last look was, so that one of them does the work of
an interval; if two look at once all the same, `fleet_server.alerts.engine` makes one history of it,
because whoever writes takes a turn and decides anew from what is stored then.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.alerts import decisions, reading, stored
from fleet_server.alerts.announcing import Announcements
from fleet_server.alerts.decisions import Observation, Subject
from fleet_server.alerts.engine import Phase, Step, Transition
from fleet_server.alerts.evidence import Evidence
from fleet_server.alerts.rules import PER_FAMILY, Signal
from fleet_server.alerts.stored import RESOLVED, TenantPlan
from fleet_server.alerts.tables import Alert, AlertSilence, AlertWatch
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn

logger = logging.getLogger(__name__)

KEPT_MS = 90 * 86_400_000
"""How long resolved alerts and ended silences can be looked at."""

_GAP_MS = 120_000
_FORGOTTEN_AT_ONCE = 5000
_TURN = "alerts"


@dataclass(frozen=True, slots=True)
class _Look:
    """One page of devices, seen at one time."""

    devices: Mapping[str, Evidence]
    plans: Mapping[str, TenantPlan]
    observed: Mapping[Subject, Observation]
    now_ms: int
    watched_since_ms: int

    def plan_of(self, device_id: str) -> TenantPlan:
        return self.plans[self.devices[device_id].tenant]

    def steps(self, rows: Sequence[Alert]) -> list[tuple[Subject, Step]]:
        opened = {stored.subject_of(row): stored.state_of(row) for row in rows}
        made = decisions.decide(
            self.observed, opened, now_ms=self.now_ms, watched_since_ms=self.watched_since_ms
        )
        return list(made)

    def unannounced(self, rows: Sequence[Alert]) -> list[Alert]:
        """Return the alerts that fire and of which somebody is to be told now."""
        return [
            row
            for row in rows
            if row.state == Phase.FIRING
            and not row.notified
            and self.plan_of(row.device_id).receivers_of(row.severity)
            and not self.plan_of(row.device_id).silenced(
                row.rule, self.devices[row.device_id].attributes
            )
        ]


class Watch:
    """The alerts of one database, for whoever looks at the devices."""

    def __init__(self, *, database: Database, clock: Clock, interval_s: float) -> None:
        self._database = database
        self._clock = clock
        self._interval_ms = round(interval_s * 1000)
        self._gap_ms = max(_GAP_MS, 4 * self._interval_ms)

    async def once(self) -> bool:
        """Look at every device, unless somebody did so just now; says whether it did.

        Raises:
            UnavailableError: the database failed; the pages before it are written.
        """
        watched_since_ms = await self._begin(unix_ms(self._clock()))
        if watched_since_ms is None:
            return False
        after: str | None = ""
        while after is not None:
            after = await self._page(after, watched_since_ms)
            await self._begin(unix_ms(self._clock()))  # a long look is no gap
        return True

    async def forget_old(self) -> None:
        """Remove some of what has been over for long.

        Raises:
            UnavailableError: the database failed.
        """
        before_ms = unix_ms(self._clock()) - KEPT_MS
        old = select(Alert.id).where(Alert.state == RESOLVED, Alert.resolved_ms < before_ms)
        async with self._database.writing() as session:
            await session.execute(delete(Alert).where(Alert.id.in_(old.limit(_FORGOTTEN_AT_ONCE))))
            await session.execute(delete(AlertSilence).where(AlertSilence.ends_ms < before_ms))

    async def _begin(self, now_ms: int) -> int | None:
        """Take the look of this interval; None if it is taken."""
        async with self._database.reading() as session:
            seen = await session.get(AlertWatch, 1)
        if seen is not None and self._is_taken(seen, now_ms):
            return None
        async with self._database.writing() as session:
            await take_turn(session, "alert watch")
            row = await session.get(AlertWatch, 1)
            if row is None:
                session.add(AlertWatch(id=1, looked_ms=now_ms, watched_since_ms=now_ms))
                return now_ms
            if self._is_taken(row, now_ms):
                return None
            if abs(now_ms - row.looked_ms) > self._gap_ms:
                row.watched_since_ms = now_ms
            row.looked_ms = now_ms
            return row.watched_since_ms

    def _is_taken(self, row: AlertWatch, now_ms: int) -> bool:
        """Say whether somebody looked just now; a look far in the future had a wrong clock."""
        return -self._gap_ms <= now_ms - row.looked_ms < self._interval_ms

    async def _page(self, after: str, watched_since_ms: int) -> str | None:
        """Look at one page; returns the last id of it, None for the last page."""
        now_ms = unix_ms(self._clock())
        async with self._database.reading() as session:
            found = await reading.page(session, after=after)
            tenants = {device.tenant for device in found}
            plans = await stored.plans(session, tenants, now_ms=now_ms)
            devices = await reading.evidence(session, found, _needs(plans), now_ms=now_ms)
            rows = await _open(session, [device.id for device in found])
        if not devices:
            return None
        look = await asyncio.to_thread(_look, devices, plans, now_ms, watched_since_ms)
        if look.steps(rows) or look.unannounced(rows):
            await self._write(look)
        return devices[-1].device_id if len(devices) == reading.PAGE else None

    async def _write(self, look: _Look) -> None:
        async with self._database.writing() as session:
            await take_turn(session, _TURN)
            rows = await _open(session, list(look.devices))
            by_subject = {stored.subject_of(row): row for row in rows}
            announcements = Announcements(session, now_ms=look.now_ms)
            for subject, made in look.steps(rows):
                row = by_subject.get(subject)
                if row is None:
                    by_subject[subject] = row = _new(look, subject)
                    session.add(row)
                await _apply(look, row, made, announcements)
                if made.state is None and made.transition is None:  # it never fired
                    await session.delete(by_subject.pop(subject))
            await session.flush()
            for row in look.unannounced(list(by_subject.values())):
                plan = look.plan_of(row.device_id)
                await announcements.fired(row, plan.receivers_of(row.severity))
                row.notified = True


def _look(
    devices: Sequence[Evidence],
    plans: Mapping[str, TenantPlan],
    now_ms: int,
    watched_since_ms: int,
) -> _Look:
    rules = {tenant: plan.rules for tenant, plan in plans.items()}
    observed = decisions.observations(
        devices, rules, now_ms=now_ms, watched_since_ms=watched_since_ms
    )
    by_id = {device.device_id: device for device in devices}
    return _Look(by_id, plans, observed, now_ms, watched_since_ms)


def _needs(plans: Mapping[str, TenantPlan]) -> reading.Needs:
    rules = [rule for plan in plans.values() for rule in plan.rules.values() if rule.enabled]
    calls = [rule.window_s for rule in rules if rule.signal in PER_FAMILY]
    drops = [rule.window_s for rule in rules if rule.signal is Signal.OUTBOX_DROPS]
    return reading.Needs(
        calls_ms=round(max(calls, default=0) * 1000), drops_ms=round(max(drops, default=0) * 1000)
    )


async def _open(session: AsyncSession, ids: Sequence[str]) -> list[Alert]:
    query = select(Alert).where(Alert.device_id.in_(ids), Alert.state != RESOLVED)
    return list(await session.scalars(query.order_by(Alert.id)))


def _new(look: _Look, subject: Subject) -> Alert:
    return Alert(
        device_id=subject.device_id,
        rule=subject.rule,
        family=subject.family,
        severity=look.observed[subject].rule.severity.value,
        began_ms=look.now_ms,
        notified=False,
        detail="",
    )


async def _apply(look: _Look, row: Alert, made: Step, announcements: Announcements) -> None:
    if made.state is not None:
        stored.take_state(row, made.state)
    if made.transition is Transition.FIRED:
        subject = stored.subject_of(row)
        row.fired_ms = look.now_ms
        row.detail = decisions.sentence(subject, look.observed[subject])
    elif made.transition is Transition.RESOLVED:
        row.state = RESOLVED
        row.resolved_ms = row.changed_ms = look.now_ms
        if row.notified:
            plan = look.plan_of(row.device_id)
            await announcements.resolved(row, plan.receivers_of(row.severity))

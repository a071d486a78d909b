"""What people say about alerts: rules and silences; and the alerts themselves, for reading."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_server import keyset, tenancy
from fleet_server.alerts import stored
from fleet_server.alerts.rules import DEFAULTS, MAX_RULES, Rule, with_defaults
from fleet_server.alerts.tables import Alert, AlertRule, AlertSilence
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.devices import selector
from fleet_server.errors import NotFoundError, RefusedError
from fleet_server.keyset import Order

MAX_SILENCES = 1000
"""That a tenant may have beside each other; those that ended do not count."""

MAX_SILENCE_MS = 366 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which alerts a list shows: those for which all of this holds."""

    state: str | None = None
    rule: str | None = None
    severity: str | None = None
    device_id: str | None = None


class AlertBook:
    """The alerts, rules and silences of one database."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def alerts(self, filters: Filters, *, after: int | None, limit: int) -> Sequence[Alert]:
        """Return alerts, the newest first; those before the id ``after``.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(
            select(Alert), Alert.id, after=after, limit=limit, order=Order.DESCENDING
        )
        for column, wanted in (
            (Alert.state, filters.state),
            (Alert.rule, filters.rule),
            (Alert.severity, filters.severity),
            (Alert.device_id, filters.device_id),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def alert(self, alert_id: int) -> Alert:
        """Return one alert.

        Raises:
            NotFoundError: there is none of that id.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            row = await session.scalar(select(Alert).where(Alert.id == alert_id))
        if row is None:
            raise NotFoundError(f"there is no alert {alert_id}")
        return row

    async def rules(self) -> list[Rule]:
        """Return the rules that hold, in the order of their names.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            rows = await session.scalars(select(AlertRule))
            return list(with_defaults(map(stored.rule_of, rows)).values())

    async def rule(self, name: str) -> Rule:
        """Return one rule.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        for rule in await self.rules():
            if rule.name == name:
                return rule
        raise NotFoundError(f"there is no alert rule {name[:80]!r}")

    async def put_rule(self, rule: Rule) -> None:
        """Store a rule in the place of the one of its name, a default one included.

        Raises:
            RefusedError: it makes no sense, or there would be too many.
            UnavailableError: the database failed.
        """
        check_name(rule.name, "an alert rule")
        rule.check()
        tenant = tenancy.current()
        async with self._database.writing() as session:
            await take_turn(session, f"alert rules of {tenant}")
            others = await session.scalar(
                select(func.count()).select_from(AlertRule).where(AlertRule.name != rule.name)
            )
            if (others or 0) >= MAX_RULES:
                raise RefusedError(f"a tenant may store {MAX_RULES} rules; remove one")
            await session.merge(stored.row_of(rule, tenant))

    async def delete_rule(self, name: str) -> None:
        """Remove a stored rule; the default of its name, if there is one, holds again.

        Raises:
            NotFoundError: none of that name is stored.
            RefusedError: it is a default rule.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            key = (tenancy.current(), name)
            row = await session.get(AlertRule, key, with_for_update=True)
            if row is not None:
                await session.delete(row)
                return
        if any(rule.name == name for rule in DEFAULTS):
            raise RefusedError(f"{name} is a default rule; store one of that name that is disabled")
        raise NotFoundError(f"there is no alert rule {name[:80]!r}")

    async def silences(self, *, after: int | None, limit: int) -> Sequence[AlertSilence]:
        """Return silences, the newest first, and for a while those that ended.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(
            select(AlertSilence), AlertSilence.id, after=after, limit=limit, order=Order.DESCENDING
        )
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def silence(  # noqa: PLR0913 (what a silence is)
        self,
        *,
        selector_text: str,
        rule: str | None,
        starts_ms: int | None,
        ends_ms: int,
        reason: str,
        who: str,
    ) -> AlertSilence:
        """Keep notices back for a time.

        Raises:
            SelectorError: the selector cannot be read.
            RefusedError: the time is over, reversed or too long, or there are too many silences.
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        begin_ms = now_ms if starts_ms is None else starts_ms
        if not max(now_ms, begin_ms) < ends_ms <= begin_ms + MAX_SILENCE_MS:
            raise RefusedError("ends_ms: use a time after starts_ms and now, within 366 days")
        row = AlertSilence(
            tenant=tenancy.current(),
            selector=str(selector.parse(selector_text)),
            rule=rule,
            starts_ms=begin_ms,
            ends_ms=ends_ms,
            reason=reason,
            created_by=who,
            created_ms=now_ms,
        )
        async with self._database.writing() as session:
            await take_turn(session, f"alert silences of {row.tenant}")
            query = select(func.count()).select_from(AlertSilence)
            if (await session.scalar(query.where(AlertSilence.ends_ms > now_ms)) or 0) >= (
                MAX_SILENCES
            ):
                raise RefusedError(f"a tenant may have {MAX_SILENCES} silences; end one")
            session.add(row)
        return row

    async def end_silence(self, silence_id: int) -> AlertSilence:
        """End a silence now; one that is over stays as it is.

        Raises:
            NotFoundError: there is none of that id.
            UnavailableError: the database failed.
        """
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            row = await session.scalar(
                select(AlertSilence).where(AlertSilence.id == silence_id).with_for_update()
            )
            if row is None:
                raise NotFoundError(f"there is no silence {silence_id}")
            row.ends_ms = min(row.ends_ms, now_ms)
            row.starts_ms = min(row.starts_ms, row.ends_ms)
        return row


def check_name(name: str, what: str) -> None:
    """Accept the name of a rule or a webhook.

    Raises:
        RefusedError: it is malformed.
    """
    try:
        names.family(name)
    except ProtocolError as error:
        raise RefusedError(
            f"{name[:80]!r} cannot name {what}: use 1 to 64 of a-z, 0-9, hyphens, underscores"
        ) from error

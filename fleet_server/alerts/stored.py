"""Rows of alerts and the values of the pure core that they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.alerts.decisions import Subject
from fleet_server.alerts.engine import Phase, State
from fleet_server.alerts.rules import Rule, Severity, Signal, with_defaults
from fleet_server.alerts.tables import Alert, AlertRule, AlertSilence, AlertWebhook
from fleet_server.devices import selector
from fleet_server.devices.selector import Attributes, Selector

RESOLVED = "resolved"

_PLAIN = (
    "name",
    "fires_at",
    "resolves_at",
    "for_s",
    "resolve_for_s",
    "window_s",
    "min_calls",
    "family",
    "enabled",
    "description",
)


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts of these devices, and of this rule if it names one, are not notified."""

    id: int
    selector: Selector
    rule: str | None

    def covers(self, rule: str, attributes: Attributes) -> bool:
        """Say whether it silences a rule's alerts of a device."""
        return self.rule in {None, rule} and self.selector.holds(attributes)


@dataclass(frozen=True, slots=True)
class Receiver:
    """A webhook that takes notices."""

    tenant: str
    name: str
    min_severity: Severity

    def takes(self, severity: Severity) -> bool:
        """Say whether it wants notices of a severity."""
        return severity.rank >= self.min_severity.rank


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """What one tenant wants to be watched and told."""

    rules: Mapping[str, Rule]
    silences: Sequence[Silence] = ()
    receivers: Sequence[Receiver] = ()

    def receivers_of(self, severity: str) -> list[Receiver]:
        """Return who is told of alerts of a severity."""
        return [each for each in self.receivers if each.takes(Severity(severity))]

    def silenced(self, rule: str, attributes: Attributes) -> bool:
        """Say whether a rule's alerts of a device are silenced now."""
        return any(each.covers(rule, attributes) for each in self.silences)


def rule_of(row: AlertRule) -> Rule:
    """Return a stored rule."""
    return Rule(
        **{name: getattr(row, name) for name in _PLAIN},
        signal=Signal(row.signal),
        selector=selector.parse(row.selector),
        severity=Severity(row.severity),
    )


def row_of(rule: Rule, tenant: str) -> AlertRule:
    """Return a rule as it is stored."""
    return AlertRule(
        **{name: getattr(rule, name) for name in _PLAIN},
        tenant=tenant,
        signal=rule.signal.value,
        selector=str(rule.selector),
        severity=rule.severity.value,
    )


def subject_of(row: Alert) -> Subject:
    """Return what a stored alert is about."""
    return Subject(row.device_id, row.rule, row.family)


def state_of(row: Alert) -> State:
    """Return the state of an open alert."""
    return State(
        phase=Phase(row.state),
        since_ms=row.since_ms,
        good_since_ms=row.good_since_ms,
        changed_ms=row.changed_ms,
    )


def take_state(row: Alert, state: State) -> None:
    """Write a state into its row."""
    row.state = state.phase.value
    row.since_ms = state.since_ms
    row.good_since_ms = state.good_since_ms
    row.changed_ms = state.changed_ms


async def plans(session: AsyncSession, tenants: set[str], *, now_ms: int) -> dict[str, TenantPlan]:
    """Return what some tenants want now."""
    rules = {tenant: list[Rule]() for tenant in tenants}
    silences = {tenant: list[Silence]() for tenant in tenants}
    for rule in await session.scalars(select(AlertRule).where(AlertRule.tenant.in_(tenants))):
        rules[rule.tenant].append(rule_of(rule))
    active = select(AlertSilence).where(
        AlertSilence.tenant.in_(tenants),
        AlertSilence.starts_ms <= now_ms,
        AlertSilence.ends_ms > now_ms,
    )
    for row in await session.scalars(active):
        silences[row.tenant].append(Silence(row.id, selector.parse(row.selector), row.rule))
    told = await receivers(session, tenants)
    return {
        tenant: TenantPlan(with_defaults(rules[tenant]), silences[tenant], told[tenant])
        for tenant in tenants
    }


async def receivers(session: AsyncSession, tenants: set[str]) -> dict[str, list[Receiver]]:
    """Return the webhooks that take notices of some tenants."""
    found = {tenant: list[Receiver]() for tenant in tenants}
    hooks = select(AlertWebhook).where(
        AlertWebhook.tenant.in_(tenants), AlertWebhook.disabled_ms.is_(None)
    )
    for hook in await session.scalars(hooks):
        found[hook.tenant].append(Receiver(hook.tenant, hook.name, Severity(hook.min_severity)))
    return found

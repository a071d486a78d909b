"""What the routes say about alerts."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from fleet_protocol import names
from fleet_server.alerts.rules import MAX_WINDOW_S, Rule, Severity, Signal
from fleet_server.alerts.tables import Alert, AlertDelivery, AlertSilence, AlertWebhook
from fleet_server.alerts.targets import MAX_URL
from fleet_server.devices import selector
from fleet_server.paging import Cursor
from fleet_server.storable import StorableText

AlertState = Literal["pending", "firing", "resolved"]
_WEEK_S = 7 * 86_400
_MAX_MS = 2**53

Name = Annotated[StorableText, Field(min_length=1, max_length=64)]
Limit = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
SelectorText = Annotated[str, Field(max_length=selector.MAX_LENGTH)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RuleBody(_Asked):
    """A rule as it is stored; see `docs/alerts.md` for the signals."""

    signal: Signal
    fires_at: Limit
    resolves_at: Limit | None = None
    """Where it is over; without it, at ``fires_at``."""
    for_s: Annotated[float, Field(ge=0, le=_WEEK_S)] = 0
    resolve_for_s: Annotated[float, Field(ge=0, le=_WEEK_S)] = 0
    window_s: Annotated[float, Field(ge=1, le=MAX_WINDOW_S)] = 600
    min_calls: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    selector: SelectorText = "*"
    family: Annotated[str, Field(max_length=64)] | None = None
    severity: Severity = Severity.WARNING
    enabled: bool = True
    description: Annotated[StorableText, Field(max_length=1000)] = ""

    def rule(self, name: str) -> Rule:
        """Return the rule that this describes.

        Raises:
            SelectorError: the selector cannot be read.
            ProtocolError: the family is malformed.
        """
        if self.family is not None:
            names.family(self.family)
        stated = self.model_dump(exclude={"resolves_at", "selector"})
        return Rule(
            **stated,
            name=name,
            resolves_at=self.fires_at if self.resolves_at is None else self.resolves_at,
            selector=selector.parse(self.selector),
        )


class RuleView(_Shown):
    """One rule; ``default`` says that it is not stored."""

    name: str
    signal: Signal
    fires_at: float
    resolves_at: float
    for_s: float
    resolve_for_s: float
    window_s: float
    min_calls: int
    selector: str
    family: str | None
    severity: Severity
    enabled: bool
    description: str
    default: bool

    @classmethod
    def of(cls, rule: Rule) -> Self:
        """Return the view of a rule."""
        shown = {name: getattr(rule, name) for name in cls.model_fields}
        return cls(**{**shown, "selector": str(rule.selector)})


class RuleList(BaseModel):
    """All rules of a tenant."""

    rules: list[RuleView]


class AlertView(_Shown):
    """One alert."""

    id: int
    device_id: str
    rule: str
    family: str | None
    severity: Severity
    state: AlertState
    began_ms: int
    """When the first bad value was seen."""
    fired_ms: int | None
    resolved_ms: int | None
    notified: bool
    """Whether webhooks were told that it fires."""
    detail: str

    @classmethod
    def of(cls, row: Alert) -> Self:
        """Return the view of a stored alert."""
        shown = {name: getattr(row, name) for name in cls.model_fields}
        return cls(**{**shown, "family": row.family or None})


class AlertPage(BaseModel):
    """A page of alerts, the newest first."""

    alerts: list[AlertView]
    next_after: Cursor | None


class SilenceBody(_Asked):
    """Which alerts are not notified, until when, and why."""

    selector: SelectorText
    rule: Name | None = None
    starts_ms: Annotated[int, Field(ge=0, le=_MAX_MS)] | None = None
    """Without it, now."""
    ends_ms: Annotated[int, Field(ge=0, le=_MAX_MS)]
    reason: Annotated[StorableText, Field(min_length=1, max_length=1000)]


class SilenceView(_Shown):
    """One silence."""

    id: int
    selector: str
    rule: str | None
    starts_ms: int
    ends_ms: int
    reason: str
    created_by: str
    created_ms: int

    @classmethod
    def of(cls, row: AlertSilence) -> Self:
        """Return the view of a stored silence."""
        return cls.model_validate(row)


class SilencePage(BaseModel):
    """A page of silences, the newest first."""

    silences: list[SilenceView]
    next_after: Cursor | None


class WebhookBody(_Asked):
    """A new webhook."""

    name: Name
    url: Annotated[str, Field(max_length=MAX_URL)]
    min_severity: Severity = Severity.INFO


class WebhookView(_Shown):
    """One webhook; never its secret."""

    name: str
    url: str
    min_severity: Severity
    created_ms: int
    disabled_ms: int | None

    @classmethod
    def of(cls, row: AlertWebhook) -> Self:
        """Return the view of a stored webhook."""
        return cls.model_validate(row)


class WebhookList(BaseModel):
    """All webhooks of a tenant."""

    webhooks: list[WebhookView]


class WebhookSecret(WebhookView):
    """A webhook with its new secret, which is not shown again."""

    secret: str


class TestNotice(BaseModel):
    """The event that a test sends."""

    event_id: str


class DeliveryView(_Shown):
    """One notice for a webhook and how far it is."""

    id: int
    event_id: str
    kind: str
    created_ms: int
    attempts: int
    due_ms: int | None
    """The next attempt; null when it is over, delivered or given up."""
    delivered_ms: int | None
    problem: str

    @classmethod
    def of(cls, row: AlertDelivery) -> Self:
        """Return the view of a stored notice."""
        return cls.model_validate(row)


class DeliveryPage(BaseModel):
    """A page of notices, the newest first."""

    deliveries: list[DeliveryView]
    next_after: Cursor | None

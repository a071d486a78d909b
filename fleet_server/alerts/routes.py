"""Routes of alerts, their rules and silences."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from fleet_server.accounts.authorization import Operator, Reader
from fleet_server.alerts.book import Filters
from fleet_server.alerts.rules import Severity
from fleet_server.alerts.schemas import (
    AlertPage,
    AlertState,
    AlertView,
    RuleBody,
    RuleList,
    RuleView,
    SilenceBody,
    SilencePage,
    SilenceView,
)
from fleet_server.paging import AfterId, Limit, following
from fleet_server.services import Wired

router = APIRouter(prefix="/api/v1", tags=["alerts"])

RowNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("/alerts")
async def list_alerts(  # noqa: PLR0913 (each is a filter)
    *,
    services: Wired,
    _account: Reader,
    state: AlertState | None = None,
    rule: Annotated[str | None, Query(max_length=64)] = None,
    severity: Severity | None = None,
    device: Annotated[str | None, Query(max_length=63)] = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> AlertPage:
    """List alerts, the newest first."""
    filters = Filters(state=state, rule=rule, severity=severity, device_id=device)
    rows = await services.alerts.book.alerts(filters, after=after, limit=limit)
    return AlertPage(
        alerts=[AlertView.of(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.id),
    )


@router.get("/alerts/{alert_id}")
async def get_alert(alert_id: RowNumber, services: Wired, _account: Reader) -> AlertView:
    """Show one alert."""
    return AlertView.of(await services.alerts.book.alert(alert_id))


@router.get("/alert-rules")
async def list_rules(services: Wired, _account: Reader) -> RuleList:
    """List the rules that hold: stored ones, and defaults that none replaces."""
    return RuleList(rules=[RuleView.of(rule) for rule in await services.alerts.book.rules()])


@router.get("/alert-rules/{name}")
async def get_rule(name: str, services: Wired, _account: Reader) -> RuleView:
    """Show one rule."""
    return RuleView.of(await services.alerts.book.rule(name))


@router.put("/alert-rules/{name}")
async def put_rule(name: str, request: RuleBody, services: Wired, _account: Operator) -> RuleView:
    """Store a rule under a name, in the place of the one that has it."""
    rule = request.rule(name)
    await services.alerts.book.put_rule(rule)
    return RuleView.of(rule)


@router.delete("/alert-rules/{name}", status_code=204)
async def delete_rule(name: str, services: Wired, _account: Operator) -> Response:
    """Remove a stored rule; its alerts resolve, and a default of its name holds again."""
    await services.alerts.book.delete_rule(name)
    return Response(status_code=204)


@router.get("/alert-silences")
async def list_silences(
    services: Wired, _account: Reader, after: AfterId = None, limit: Limit = 100
) -> SilencePage:
    """List silences, the newest first; those that ended stay for 90 days."""
    rows = await services.alerts.book.silences(after=after, limit=limit)
    return SilencePage(
        silences=[SilenceView.of(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.id),
    )


@router.post("/alert-silences", status_code=201)
async def create_silence(request: SilenceBody, services: Wired, account: Operator) -> SilenceView:
    """Keep notices of some alerts back for a time; what still fires then is notified."""
    row = await services.alerts.book.silence(
        selector_text=request.selector,
        rule=request.rule,
        starts_ms=request.starts_ms,
        ends_ms=request.ends_ms,
        reason=request.reason,
        who=account.name,
    )
    return SilenceView.of(row)


@router.post("/alert-silences/{silence_id}/end")
async def end_silence(silence_id: RowNumber, services: Wired, _account: Operator) -> SilenceView:
    """End a silence now."""
    return SilenceView.of(await services.alerts.book.end_silence(silence_id))

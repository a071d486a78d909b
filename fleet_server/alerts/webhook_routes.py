"""Routes of webhooks, for administrators: who makes one chooses what this machine calls."""

from fastapi import APIRouter, Response

from fleet_server.accounts.authorization import Administrator
from fleet_server.alerts.schemas import (
    DeliveryPage,
    DeliveryView,
    TestNotice,
    WebhookBody,
    WebhookList,
    WebhookSecret,
    WebhookView,
)
from fleet_server.alerts.tables import AlertWebhook
from fleet_server.paging import AfterId, Limit, following
from fleet_server.services import Wired

router = APIRouter(prefix="/api/v1/alert-webhooks", tags=["alerts"])


@router.get("")
async def list_webhooks(services: Wired, _account: Administrator) -> WebhookList:
    """List webhooks in the order of their names."""
    rows = await services.alerts.webhooks.all()
    return WebhookList(webhooks=[WebhookView.of(row) for row in rows])


@router.post("", status_code=201)
async def create_webhook(
    request: WebhookBody, services: Wired, _account: Administrator
) -> WebhookSecret:
    """Make a webhook; the answer has its secret, which is not shown again."""
    row = await services.alerts.webhooks.create(
        request.name, url=request.url, min_severity=request.min_severity
    )
    return _with_secret(row)


@router.get("/{name}")
async def get_webhook(name: str, services: Wired, _account: Administrator) -> WebhookView:
    """Show one webhook."""
    return WebhookView.of(await services.alerts.webhooks.get(name))


@router.delete("/{name}", status_code=204)
async def delete_webhook(name: str, services: Wired, _account: Administrator) -> Response:
    """Remove a webhook; what waits for it is given up."""
    await services.alerts.webhooks.delete(name)
    return Response(status_code=204)


@router.post("/{name}/secret")
async def rotate_secret(name: str, services: Wired, _account: Administrator) -> WebhookSecret:
    """Make a new secret; for a day notices carry signatures of both."""
    return _with_secret(await services.alerts.webhooks.rotate(name))


@router.post("/{name}/enable")
async def enable_webhook(name: str, services: Wired, _account: Administrator) -> WebhookView:
    """Send notices again to a receiver that had answered 410 Gone."""
    return WebhookView.of(await services.alerts.webhooks.enable(name))


@router.post("/{name}/test", status_code=202)
async def try_webhook(name: str, services: Wired, _account: Administrator) -> TestNotice:
    """Queue a notice that says nothing; its delivery shows whether the receiver took it."""
    return TestNotice(event_id=await services.alerts.webhooks.test(name))


@router.get("/{name}/deliveries")
async def list_deliveries(
    name: str,
    services: Wired,
    _account: Administrator,
    after: AfterId = None,
    limit: Limit = 100,
) -> DeliveryPage:
    """List the notices of a webhook, the newest first; those that are over stay for 14 days."""
    rows = await services.alerts.webhooks.deliveries(name, after=after, limit=limit)
    return DeliveryPage(
        deliveries=[DeliveryView.of(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.id),
    )


def _with_secret(row: AlertWebhook) -> WebhookSecret:
    return WebhookSecret.model_validate(row)

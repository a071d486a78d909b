"""``/metrics``: what Prometheus reads, with the token of a viewer.

Everybody sees the own tenant's fleet. What the process itself does serves all tenants, so only the
default one, whose people run the server, is told.
"""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fleet_server import tenancy
from fleet_server.accounts.authorization import Reader
from fleet_server.services import Wired

router = APIRouter(tags=["monitoring"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: Wired, account: Reader) -> Response:
    """Return the metrics in Prometheus' text format."""
    pages = [generate_latest(await services.fleet_state.metrics())]
    if account.tenant == tenancy.DEFAULT:
        pages.append(generate_latest(await services.fleet_state.components()))
        pages.append(generate_latest(await services.fleet_state.brokers()))
        pages.append(generate_latest(await services.fleet_state.storage()))
        pages.append(generate_latest(services.metrics.registry))
    return Response(b"".join(pages), media_type=CONTENT_TYPE_LATEST)

"""Makes the HTTP application of wired services."""

from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI

from fleet_protocol import command_answers
from fleet_server import api_document, health, http_errors, known_query
from fleet_server.accounts import openid_routes
from fleet_server.accounts import routes as accounts
from fleet_server.alerts import routes as alerts
from fleet_server.alerts import webhook_routes
from fleet_server.assignments import routes as assignments
from fleet_server.audit import routes as audit
from fleet_server.body_limit import BodyLimit
from fleet_server.commands import configuration_routes
from fleet_server.commands import routes as commands
from fleet_server.deltas import routes as deltas
from fleet_server.devices import group_routes, poll_routes
from fleet_server.devices import routes as devices
from fleet_server.monitoring import routes as monitoring
from fleet_server.monitoring.request_metrics import RequestMetrics
from fleet_server.releases import routes as releases
from fleet_server.request_log import RequestLog
from fleet_server.rollouts import routes as rollouts
from fleet_server.services import Services
from fleet_server.storable import no_nul
from fleet_server.telemetry import routes as telemetry
from fleet_server.tenancy import ClosedAtFirst
from fleet_server.trust import routes as trust
from fleet_server.trust.schemas import MAX_ADOPT_BYTES

_BODY_LIMITS = {
    "/device/v1/enroll": devices.MAX_ENROLL_BYTES,
    "/device/v1/certificate": devices.MAX_ENROLL_BYTES,
    "/device/v1/certificate/confirm": devices.MAX_ENROLL_BYTES,
    command_answers.ROUTE: command_answers.MAX_ANSWER_BYTES,
    "/api/v1/trust/metadata": MAX_ADOPT_BYTES,
    "/api/v1/releases": None,  # each part of an upload is bounded by what is signed
}


def create_app(services: Services) -> FastAPI:
    """Return the application; device API, operator API and health are routers over the services."""
    app = _bare()
    app.state.services = services
    _add_routes(app)
    http_errors.install(app)
    app.add_middleware(BodyLimit, limits=_BODY_LIMITS)
    app.add_middleware(ClosedAtFirst)
    app.add_middleware(RequestMetrics)
    app.add_middleware(RequestLog)
    return app


def describe() -> dict[str, Any]:
    """Return the OpenAPI document, for which no services are needed."""
    app = _bare()
    _add_routes(app)
    return api_document.completed(app)


def _add_routes(app: FastAPI) -> None:
    for router in (
        health.router,
        accounts.router,
        openid_routes.router,
        audit.router,
        devices.device_router,
        poll_routes.router,
        devices.operator_router,
        group_routes.router,
        releases.device_router,
        deltas.device_router,
        releases.publisher_router,
        releases.operator_router,
        assignments.router,
        rollouts.router,
        telemetry.router,
        monitoring.router,
        trust.device_router,
        trust.router,
        alerts.router,
        webhook_routes.router,
        commands.device_router,
        commands.router,
        configuration_routes.router,
    ):
        operators = router.prefix.startswith("/api/")
        app.include_router(router, dependencies=[Depends(known_query.check)] if operators else [])


def _bare() -> FastAPI:
    app = FastAPI(
        title="Skerry fleet server",
        version=version("skerry"),
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        dependencies=[Depends(no_nul)],
        redirect_slashes=False,
        redoc_url=None,
    )
    api_document.install(app)
    return app

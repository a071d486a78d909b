"""Health of the process, for whoever supervises it; no token needed, nothing secret told."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from fleet_server.services import Wired

router = APIRouter(prefix="/health", tags=["health"])

_NEEDED = ("database", "broker", "ingest")
"""Without the signer the server still serves; only new assignments wait."""


@router.get("/live")
async def live() -> dict[str, str]:
    """Answer as long as the process does."""
    return {"status": "live"}


@router.get("/ready")
async def ready(services: Wired) -> Response:
    """Say whether devices can be served now, and what works; 503 if they cannot.

    A server that was told to stop is ``stopping``, with 503, from then on.
    """
    states = await services.components.states()
    is_ready = all(states[name] for name in _NEEDED) and not services.components.stopping
    status = "stopping" if services.components.stopping else "not_ready"
    return JSONResponse(
        {
            "status": "ready" if is_ready else status,
            "components": {name: "up" if up else "down" for name, up in states.items()},
        },
        200 if is_ready else 503,
    )

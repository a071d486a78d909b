"""What the server renews and puts right while it runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fleet_protocol.errors import SkerryError
from fleet_server.assignments.service import Assignments
from fleet_server.releases.service import Releases
from fleet_server.services import Services

logger = logging.getLogger(__name__)

INTERVAL_S = 600.0


async def run(services: Services) -> None:
    """Do it at intervals, until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        await once(services.releases, services.assignments)
        await _attempt("forget expired tokens", services.accounts.forget_expired)


async def once(releases: Releases, assignments: Assignments) -> None:
    """Renew what would expire, and list what was published while the database failed.

    What fails is tried again the next time, long before it matters, and holds up nothing else.
    """

    async def renew_assignments() -> None:
        renewed = await assignments.renew()
        if renewed:
            logger.info("assignments_renewed", extra={"count": renewed})

    steps = {
        "renew the repository": releases.renew,
        "list the releases": releases.reindex,
        "renew assignments": renew_assignments,
    }
    for name, step in steps.items():
        await _attempt(name, step)


async def _attempt(name: str, step: Callable[[], Awaitable[None]]) -> None:
    try:
        await step()
    except (SkerryError, OSError) as error:
        logger.error(  # noqa: TRY400 (expected, and said in one sentence)
            "maintenance_failed", extra={"step": name, "reason": str(error)}
        )

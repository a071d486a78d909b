"""What the server renews and puts right while it runs."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from fleet_protocol.errors import SkerryError
from fleet_server.assignments.service import Assignments
from fleet_server.releases.service import Releases
from fleet_server.services import Services

logger = logging.getLogger(__name__)

INTERVAL_S = 600.0


async def run(services: Services, renew_ingest: Callable[[], bool]) -> None:
    """Do it at intervals, and when assignments have to be signed anew, until cancelled."""

    async def renew_ingest_certificate() -> None:
        await asyncio.to_thread(renew_ingest)

    async def forget_expired() -> None:
        await services.accounts.forget_expired()

    own = {
        "renew the certificate of the ingest service": renew_ingest_certificate,
        "tell what runs out": services.trust.warn,
        "forget expired tokens": forget_expired,
    }
    outdated = services.assignments.outdated
    while True:
        await _steps(own)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL_S):
                await outdated.wait()
        outdated.clear()
        await once(services.releases, services.assignments)


async def once(releases: Releases, assignments: Assignments) -> None:
    """Renew what would expire, and list what was published while the database failed.

    What fails is tried again the next time, long before it matters, and holds up nothing else.
    """

    async def renew_assignments() -> None:
        while renewed := await assignments.renew():
            logger.info("assignments_renewed", extra={"count": renewed})

    steps = {
        "renew the repository": releases.renew,
        "list the releases": releases.reindex,
        "renew assignments": renew_assignments,
    }
    await _steps(steps)


async def _steps(steps: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    for name, step in steps.items():
        await _attempt(name, step)


async def _attempt(name: str, step: Callable[[], Awaitable[None]]) -> None:
    try:
        await step()
    except (SkerryError, OSError) as error:
        logger.error(  # noqa: TRY400 (expected, and said in one sentence)
            "maintenance_failed", extra={"step": name, "reason": str(error)}
        )

"""Work on the database that is done again and again as long as the server lives."""

import asyncio
from collections.abc import Awaitable, Callable

from fleet_protocol.errors import SkerryError
from fleet_server.complaints import Complaints


async def repeat(
    once: Callable[[], Awaitable[object]],
    *,
    interval_s: float,
    complaints: Complaints,
    event: str,
) -> None:
    """Do it at intervals until cancelled; what fails is logged and tried again.

    Args:
        once: the work.
        interval_s: from the end of one time to the beginning of the next.
        complaints: keep the log short while it fails.
        event: what the log says then.
    """
    while True:
        try:
            await once()
        except SkerryError as error:
            complaints.log(event, reason=str(error)[:500])
        await asyncio.sleep(interval_s)

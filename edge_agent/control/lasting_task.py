"""Tasks that outlive their own defects: an unexpected error is logged, counted, and begun again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edge_agent.control.backoff import Backoff
from edge_agent.errors import AgentError

logger = logging.getLogger(__name__)

_STEADY_AFTER_S = 60.0
_MAX_FAILURES = 20


class BrokenTaskError(AgentError):
    """A task failed again and again; the process ends, and its supervisor starts it afresh."""


async def lasting(name: str, run: Callable[[], Awaitable[None]], *, backoff: Backoff) -> None:
    """Run a task for ever.

    Raises:
        BrokenTaskError: it failed too often without running steadily in between.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began_s = loop.time()
        try:
            await run()
        except AgentError as error:
            logger.error("task_failed", extra={"task_name": name, "reason": str(error)})  # noqa: TRY400 (the message says it)
        except Exception:
            logger.exception("task_crashed", extra={"task_name": name})
        if loop.time() - began_s > _STEADY_AFTER_S:
            failures = 0
            backoff.reset()
        failures += 1
        if failures >= _MAX_FAILURES:
            raise BrokenTaskError(f"the task {name} failed {failures} times in a row")
        await asyncio.sleep(backoff.next_s())

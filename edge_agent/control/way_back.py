"""The way back without a database: what is not committed does not serve while control cannot run.

Control watches a candidate on probation. Where its database cannot be opened, because the disk is
full or it is damaged, nobody does; then the runtime serves again what ``active.json`` says, which
takes no write. The journal is brought in line at the next start that succeeds.
"""

import logging

from edge_agent.control.active_set import ActiveSetFile, DamagedActiveSetError
from edge_agent.control.runtime_client import (
    Runtime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)

logger = logging.getLogger(__name__)


def serve_what_is_committed(runtime: Runtime, active_set: ActiveSetFile) -> None:
    """Put back every family that serves something else than its committed release.

    Without an ``active.json`` there is no telling what is committed, and everything goes on.
    """
    try:
        if not active_set.path.exists():
            return
        committed = active_set.read()
        serving = {one.family: one.version for one in runtime.status().releases if one.active}
    except (DamagedActiveSetError, RuntimeUnavailableError, RuntimeRefusedError) as error:
        logger.warning("way_back_not_known", extra={"reason": str(error)})
        return
    for family, version in serving.items():
        release = committed.get(family)
        try:
            if release is None:
                runtime.stop_family(family)
            elif release.version != version:
                runtime.load(release)
                runtime.activate(family, release.version)
            else:
                continue
        except (RuntimeUnavailableError, RuntimeRefusedError) as error:
            logger.error("candidate_not_put_back", extra={"family": family, "reason": str(error)})  # noqa: TRY400 (the runtime's words say it)
        else:
            logger.warning("candidate_put_back", extra={"family": family, "version": version})

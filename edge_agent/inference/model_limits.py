"""From the settings to what the scheduler of one release is told."""

from collections.abc import Callable

from edge_agent.inference.scheduling import QueueLimits
from edge_agent.runtime_api import ActiveRelease
from edge_agent.settings import ModelSettings, RuntimeSettings

_EVERY_FAMILY = ModelSettings()


def limits_from(
    settings: RuntimeSettings, *, workers: int
) -> Callable[[ActiveRelease], QueueLimits]:
    """Return what says the limits of a release.

    Args:
        settings: a family's own values outrank the common ones.
        workers: threads that the process has; no model gets more instances than that.
    """

    def limits(release: ActiveRelease) -> QueueLimits:
        own = settings.models.get(release.family, _EVERY_FAMILY)
        instances = _first(own.instances, settings.instances) or workers
        return QueueLimits(
            max_queue=_first(own.max_queue, settings.max_queue),
            instances=min(instances, workers),
            max_batch=_first(own.max_batch, settings.max_batch),
            batch_wait_s=_first(own.batch_wait_us, settings.batch_wait_us) * 1e-6,
        )

    return limits


def _first(own: int | None, common: int) -> int:
    return common if own is None else own
